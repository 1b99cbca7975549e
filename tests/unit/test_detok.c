/* test_detok.c: streamed text against a slow decoder written after the reference, on random ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "text/detok.h"
#include "text/vocab.h"
#include "token_data.h"

#include <stdlib.h>
#include <string.h>

enum { MAX = 40 };

/* ---- the twin: all tokens by name, then one rule after the other ---- */

struct names {
    struct buf name[MAX];
    size_t n;
};

static bool is_byte(const struct buf *b, unsigned *v) {
    char more;
    return b->len == 6 && sscanf(b->data, "<0x%2X>%c", v, &more) == 1 && b->data[5] == '>';
}

/* The starts of two and three bytes that a longer character has. */
static unsigned char two[1 << 16], three[1 << 24];
static int all_starts(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char u[4];
        size_t w = utf8_put(c, u);
        const unsigned char *p = (const unsigned char *)u;
        if (w > 2) two[p[0] << 8 | p[1]] = 1;
        if (w > 3) three[p[0] << 16 | p[1] << 8 | p[2]] = 1;
    }
    return 0;
}

/* One U+FFFD for each longest start of a character that comes to nothing. */
static void twin_lossy(const char *s, size_t n, struct buf *out) {
    const unsigned char *p = (const unsigned char *)s;
    uint32_t c;
    for (size_t i = 0; i < n;) {
        size_t w = utf8_get(s + i, n - i, &c);
        if (w) {
            buf_add(out, s + i, w);
        } else {
            buf_adds(out, "\xef\xbf\xbd");
            w = 1;
            if (n - i >= 2 && two[p[i] << 8 | p[i + 1]]) w = 2;
            if (n - i >= 3 && three[p[i] << 16 | p[i + 1] << 8 | p[i + 2]]) w = 3;
        }
        i += w;
    }
}

static void twin_byte_level(const struct names *t, struct buf *out) {
    struct buf bytes;
    buf_init(&bytes, 100000);
    for (size_t i = 0; i < t->n; i++) {
        size_t at = bytes.len, w;
        for (size_t k = 0; k < t->name[i].len; k += w) {
            uint32_t c = 0;
            w = utf8_get(t->name[i].data + k, t->name[i].len - k, &c);
            int b = byte_alphabet_get(c);
            if (b >= 0)
                buf_addc(&bytes, (char)b);
            else {
                bytes.len = at;
                buf_add(&bytes, t->name[i].data, t->name[i].len);
                break;
            }
        }
    }
    twin_lossy(buf_str(&bytes), bytes.len, out);
    buf_release(&bytes);
}

static void twin_run(struct buf *run, struct buf *out) {
    if (utf8_valid(buf_str(run), run->len))
        buf_add(out, buf_str(run), run->len);
    else
        for (size_t i = 0; i < run->len; i++) buf_adds(out, "\xef\xbf\xbd");
    buf_reset(run);
}

/* Replace U+2581 by a space, ByteFallback, Fuse, Strip one space. */
static void twin_fuse(const struct names *t, struct buf *out) {
    struct buf run, all;
    buf_init(&run, 100000);
    buf_init(&all, 100000);
    for (size_t i = 0; i < t->n; i++) {
        unsigned v;
        if (is_byte(&t->name[i], &v)) {
            buf_addc(&run, (char)v);
            continue;
        }
        twin_run(&run, &all);
        for (size_t k = 0; k < t->name[i].len; k++) {
            bool space = !strncmp(t->name[i].data + k, "\xe2\x96\x81", 3);
            buf_addc(&all, space ? ' ' : t->name[i].data[k]);
            if (space) k += 2;
        }
    }
    twin_run(&run, &all);
    size_t skip = all.len && all.data[0] == ' ';
    buf_add(out, buf_str(&all) + skip, all.len - skip);
    buf_release(&run);
    buf_release(&all);
}

/* ---- the comparison ---- */

static int32_t some_id(const struct tokenizer *t, const int32_t byte_id[256]) {
    static const char mix[] = "\xe6\xbc\xa2\xc3\xa9\xf0\x9f\x91\x8d"
                              "A\xff\x80 ";
    int32_t id = byte_id[(unsigned char)mix[(size_t)rand() % (sizeof mix - 1)]];
    return rand() % 3 && id >= 0 ? id : rand() % (int32_t)tokenizer_n_vocab(t);
}

static void one_round(const struct tokenizer *t, const int32_t byte_id[256], bool fuse) {
    struct names names = {.n = 0};
    struct buf want, got;
    struct detok d;
    int n = rand() % MAX;
    buf_init(&want, 100000);
    buf_init(&got, 100000);
    detok_init(&d, t, false);
    for (int i = 0; i < n; i++) {
        int32_t id = some_id(t, byte_id);
        buf_init(&names.name[names.n], 100000);
        if (tokenizer_token_name(t, id, &names.name[names.n])) names.n++;
        size_t before = got.len;
        detok_push(&d, id, &got);
        assert_true(utf8_valid(buf_str(&got) + before, got.len - before));
    }
    detok_finish(&d, &got);
    if (fuse)
        twin_fuse(&names, &want);
    else
        twin_byte_level(&names, &want);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(buf_str(&got), buf_str(&want), want.len);
    for (size_t i = 0; i < names.n; i++) buf_release(&names.name[i]);
    buf_release(&want);
    buf_release(&got);
    detok_release(&d);
}

static void rounds(const char *family, bool fuse) {
    struct tokenizer *t = token_data_open(family);
    if (!t) return;
    int32_t byte_id[256];
    for (int b = 0; b < 256; b++) {
        char name[8];
        size_t n =
            fuse ? (size_t)snprintf(name, sizeof name, "<0x%02X>", b) : byte_alphabet_put((unsigned char)b, name);
        byte_id[b] = tokenizer_id_of(t, name, n);
        assert_true(byte_id[b] >= 0);
    }
    srand(11);
    for (int i = 0; i < 3000; i++) one_round(t, byte_id, fuse);
    tokenizer_close(t);
}

static void byte_level_streams(void **state) {
    (void)state;
    rounds("gpt2", false);
    rounds("qwen3", false);
}

static void byte_fallback_streams(void **state) {
    (void)state;
    rounds("mistral-v0.3", true);
}

/* ---- by hand ---- */

#define MODEL                                                                                                          \
    "\"model\":{\"vocab\":{\"\xe2\x96\x81"                                                                             \
    "a\":0,\"b\":1,\"<0xC3>\":2,\"<0xA9>\":3,\"\xe2\x96\x81\":4},\"merges\":[]}}"

static void pushes(const char *json, const int32_t *id, size_t n, const char *const *want) {
    struct tokenizer *t = tokenizer_parse(json, strlen(json), NULL);
    struct detok d;
    struct buf out;
    buf_init(&out, 1000);
    assert_non_null(t);
    detok_init(&d, t, false);
    for (size_t i = 0; i <= n; i++) {
        buf_reset(&out);
        if (i < n)
            detok_push(&d, id[i], &out);
        else
            detok_finish(&d, &out);
        assert_string_equal(buf_str(&out), want[i]);
    }
    detok_release(&d);
    buf_release(&out);
    tokenizer_close(t);
}

static void what_is_held_back(void **state) {
    (void)state;
    const int32_t id[] = {2, 3, 1, 2, 1, 99, 2};
    pushes("{\"decoder\":{\"type\":\"ByteFallback\"}," MODEL, id, 7,
           (const char *[]){"", "",
                            "\xc3\xa9"
                            "b",
                            "",
                            "\xef\xbf\xbd"
                            "b",
                            "", "", "\xef\xbf\xbd"});
    pushes("{\"decoder\":{\"type\":\"ByteFallback\"}," MODEL, (const int32_t[]){2, 3, 3, 3}, 4,
           (const char *[]){"", "", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd", ""});
}

static void metaspace_drops_the_first_spaces(void **state) {
    (void)state;
    const int32_t id[] = {0, 0, 4, 1};
    pushes("{\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\"}," MODEL, id, 4,
           (const char *[]){"a", " a", " ", "b", ""});
    pushes("{\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"never\"}," MODEL,
           id, 4, (const char *[]){" a", " a", " ", "b", ""});
}

static void without_a_decoder_spaces_join(void **state) {
    (void)state;
    pushes("{" MODEL, (const int32_t[]){1, 1}, 2, (const char *[]){"b", " b", ""});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level_streams),
        cmocka_unit_test(byte_fallback_streams),
        cmocka_unit_test(what_is_held_back),
        cmocka_unit_test(metaspace_drops_the_first_spaces),
        cmocka_unit_test(without_a_decoder_spaces_join),
    };
    return cmocka_run_group_tests_name("detok", tests, all_starts, NULL);
}
