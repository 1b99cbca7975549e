/* test_tokenizer.c: the reference's ids and texts (golden files), pieces, caps, and refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "text/detok.h"
#include "text/tokenizer.h"
#include "token_data.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const FAMILY[] = {"gpt2", "llama3.1", "llama3.2", "mistral-v0.3", "qwen2.5", "qwen3", "tinyllama"};
enum { FAMILIES = sizeof FAMILY / sizeof *FAMILY };

struct fixture {
    struct tokenizer *t;
    struct token_scratch *s;
    struct ids ids;
    struct buf text;
};

static struct fixture fixture_new(struct tokenizer *t) {
    struct fixture f = {.t = t, .s = token_scratch_new(t)};
    buf_init(&f.text, 1 << 26);
    return f;
}

static void fixture_free(struct fixture *f) {
    ids_release(&f->ids);
    buf_release(&f->text);
    token_scratch_free(f->s);
    tokenizer_close(f->t);
}

static const struct ids *encode(struct fixture *f, const char *s, size_t n, unsigned flags) {
    struct err e;
    struct text_piece p = {s, n, true};
    f->ids.n = 0;
    assert_int_equal(tokenizer_encode(f->t, f->s, &(struct encode_args){&p, 1, flags, 0}, &f->ids, &e), ENCODE_OK);
    return &f->ids;
}

static void ids_equal(const struct ids *got, const json_t *want, const char *text) {
    bool same = got->n == json_array_size(want);
    for (size_t i = 0; same && i < got->n; i++) same = got->v[i] == json_integer_value(json_array_get(want, i));
    if (!same) print_message("text: %s\n", text);
    assert_true(same);
}

static void text_equal(struct fixture *f, const json_t *want, bool skip) {
    buf_reset(&f->text);
    tokenizer_decode(f->t, f->ids.v, f->ids.n, skip, &f->text);
    assert_string_equal(buf_str(&f->text), json_string_value(want));
    assert_int_equal(f->text.len, json_string_length(want));
}

/* The same text must come out token by token, whole characters each time. */
static void stream_equal(struct fixture *f, const json_t *want, bool skip) {
    struct detok d;
    detok_init(&d, f->t, skip);
    buf_reset(&f->text);
    for (size_t i = 0; i < f->ids.n; i++) {
        size_t before = f->text.len;
        detok_push(&d, f->ids.v[i], &f->text);
        json_t *piece = json_stringn(f->text.data + before, f->text.len - before); /* NULL unless valid UTF-8 */
        if (f->text.len > before) assert_non_null(piece);
        json_decref(piece);
    }
    detok_finish(&d, &f->text);
    detok_release(&d);
    assert_string_equal(buf_str(&f->text), json_string_value(want));
}

static void golden_line(struct fixture *f, const char *line) {
    json_t *j = json_loads(line, JSON_ALLOW_NUL, NULL), *text = json_object_get(j, "text");
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    assert_non_null(s);
    ids_equal(encode(f, s, n, TOK_PARSE_SPECIAL | TOK_ADD_SPECIAL), json_object_get(j, "ids_special"), s);
    ids_equal(encode(f, s, n, TOK_PARSE_SPECIAL), json_object_get(j, "ids"), s);
    text_equal(f, json_object_get(j, "decoded"), false);
    text_equal(f, json_object_get(j, "decoded_skip"), true);
    stream_equal(f, json_object_get(j, "decoded"), false);
    stream_equal(f, json_object_get(j, "decoded_skip"), true);
    if (n) assert_true(tokenizer_longest_token_bytes(f->t) >= n / (f->ids.n ? f->ids.n : 1));
    json_decref(j);
}

static void ids_and_texts_are_the_references(void **state) {
    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        struct tokenizer *t = token_data_open(FAMILY[i]);
        if (!t) return;
        struct fixture f = fixture_new(t);
        char path[300], *line = NULL;
        size_t cap = 0, lines = 0;
        snprintf(path, sizeof path, "golden-tokens/%s.jsonl.xz", FAMILY[i]);
        FILE *in = token_data_unxz(path);
        for (; getline(&line, &cap, in) > 0; lines++) golden_line(&f, line);
        assert_int_equal(pclose(in), 0);
        assert_int_equal(lines, 1716);
        free(line);
        fixture_free(&f);
    }
}

static void a_damaged_file_is_refused(void **state) {
    (void)state;
    struct err e = {0};
    if (!token_data_there()) return;
    size_t n;
    char *json = token_data_json("llama2-malformed", &n);
    assert_null(tokenizer_parse(json, n, &e));
    assert_non_null(strstr(e.text, "merge 18918"));
    free(json);
}

/* One character over and over, on a stack of 64 KiB: depth must not follow the text. (Quadratic time would show as
 * hours.) */
static void *runs_of_one_character(void *arg) {
    static const char *const unit[] = {"A",
                                       " ",
                                       "\n",
                                       "1",
                                       "'s",
                                       "<|",
                                       "a ",
                                       "\xcc\x81",
                                       "\xcc\x81\xcc\xa3",
                                       "\xe1\x84\x80",
                                       "\xe6\xbc\xa2",
                                       "\xf0\x9f\x91\x8d"};
    enum { N = 1 << 18 };
    struct fixture *f = arg;
    char *s = mem_alloc(N);
    for (size_t i = 0; i < sizeof unit / sizeof *unit; i++) {
        size_t w = strlen(unit[i]), n = N / w * w;
        for (size_t k = 0; k < n; k += w) memcpy(s + k, unit[i], w);
        assert_true(encode(f, s, n, TOK_PARSE_SPECIAL)->n > 0);
    }
    free(s);
    return NULL;
}

static void long_runs_need_no_stack(void **state) {
    (void)state;
    static const char *const family[] = {"gpt2", "qwen3", "tinyllama"};
    for (int i = 0; i < 3; i++) {
        struct tokenizer *t = token_data_open(family[i]);
        if (!t) return;
        struct fixture f = fixture_new(t);
        pthread_attr_t attr;
        pthread_t thread;
        pthread_attr_init(&attr);
        assert_int_equal(pthread_attr_setstacksize(&attr, 65536), 0);
        assert_int_equal(pthread_create(&thread, &attr, runs_of_one_character, &f), 0);
        pthread_join(thread, NULL);
        pthread_attr_destroy(&attr);
        fixture_free(&f);
    }
}

/* ---- small tokenizers made here ---- */

#define HEAD "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
#define BYTES_PRE "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true},"
#define BYTES_DEC "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true},"
#define SPECIAL(id, s)                                                                                                 \
    "{\"id\":" #id ",\"content\":\"" s                                                                                 \
    "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"                                 \
    "\"special\":true}"
#define MODEL(vocab, merges) "\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}}"

static const char SMALL[] = HEAD "\"added_tokens\":[" SPECIAL(6, "<|x|>") "]," BYTES_PRE BYTES_DEC MODEL(
    "{\"a\":0,\"b\":1,\"ab\":2,\"<\":3,\"|\":4,\"x\":5}", "[\"a b\"]");

static const struct ids *encode_pieces(struct fixture *f, const struct text_piece *p, size_t n) {
    struct err e;
    f->ids.n = 0;
    struct encode_args a = {p, n, TOK_PARSE_SPECIAL, 0};
    assert_int_equal(tokenizer_encode(f->t, f->s, &a, &f->ids, &e), ENCODE_OK);
    return &f->ids;
}

static void only_trusted_text_makes_special_tokens(void **state) {
    (void)state;
    struct fixture f = fixture_new(tokenizer_parse(SMALL, sizeof SMALL - 1, NULL));
    struct text_piece mixed[] = {
        {"a", 1, true}, {"b<|x|>", 6, false}, {"<|x|>", 5, true}, {"<|", 2, true}, {"x|>", 3, false}};
    const int32_t want[] = {2, 3, 4, 5, 4, 6, 3, 4, 5, 4}; /* "ab" across a border; ">" is no token and vanishes */
    const struct ids *got = encode_pieces(&f, mixed, 5);
    assert_int_equal(got->n, 10);
    assert_memory_equal(got->v, want, sizeof want);
    struct text_piece split[] = {{"<|", 2, true}, {"x|>", 3, true}};
    assert_int_equal(encode_pieces(&f, split, 2)->v[0], 6);
    assert_int_equal(encode(&f, "<|x|>", 5, 0)->n, 4);
    assert_int_equal(encode(&f, "<|x|>", 5, TOK_PARSE_SPECIAL)->n, 1);
    fixture_free(&f);
}

static void a_cap_on_ids_ends_the_work(void **state) {
    (void)state;
    struct fixture f = fixture_new(tokenizer_parse(SMALL, sizeof SMALL - 1, NULL));
    struct text_piece p = {"a b a b a b", 11, true}; /* the spaces have no token */
    for (size_t max = 1; max < 10; max++) {
        f.ids.n = 0;
        int rc = tokenizer_encode(f.t, f.s, &(struct encode_args){&p, 1, 0, max}, &f.ids, NULL);
        assert_int_equal(rc, max < 6 ? ENCODE_TOO_LONG : ENCODE_OK);
    }
    fixture_free(&f);
}

static void bad_text_is_refused(void **state) {
    (void)state;
    struct err e = {0};
    struct fixture f = fixture_new(tokenizer_parse(SMALL, sizeof SMALL - 1, NULL));
    struct text_piece p = {"a\xff", 2, true};
    assert_int_equal(tokenizer_encode(f.t, f.s, &(struct encode_args){&p, 1, 0, 0}, &f.ids, &e), -1);
    assert_int_equal(e.kind, ERR_INPUT);
    fixture_free(&f);
}

static void facts_about_tokens(void **state) {
    (void)state;
    struct fixture f = fixture_new(tokenizer_parse(SMALL, sizeof SMALL - 1, NULL));
    assert_int_equal(tokenizer_n_vocab(f.t), 7);
    assert_int_equal(tokenizer_id_of(f.t, "<|x|>", 5), 6);
    assert_int_equal(tokenizer_id_of(f.t, "ab", 2), 2);
    assert_int_equal(tokenizer_id_of(f.t, "abc", 3), -1);
    assert_true(tokenizer_is_special(f.t, 6));
    assert_false(tokenizer_is_special(f.t, 2));
    assert_true(tokenizer_token_name(f.t, 6, &f.text));
    assert_false(tokenizer_token_name(f.t, 7, &f.text));
    assert_string_equal(buf_str(&f.text), "<|x|>");
    assert_null(tokenizer_special(f.t, NAME_BOS));
    fixture_free(&f);
}

static void bytes_are_a_tokenizer_too(void **state) {
    (void)state;
    struct fixture f = fixture_new(tokenizer_bytes(1000));
    const struct ids *got = encode(&f, "h\xc3\xa9", 3, TOK_PARSE_SPECIAL | TOK_ADD_SPECIAL);
    assert_int_equal(got->n, 3);
    assert_int_equal(got->v[1], 0xc3);
    ids_add(&f.ids, 300);
    tokenizer_decode(f.t, f.ids.v, f.ids.n, true, &f.text);
    assert_string_equal(buf_str(&f.text), "h\xc3\xa9 <300>");
    assert_int_equal(tokenizer_n_vocab(f.t), 1000);
    fixture_free(&f);
}

static void refusals_are_sentences(void **state) {
    (void)state;
    static const struct {
        const char *json, *says;
    } bad[] = {
        {"", "object was expected"},
        {"{", "ends too early"},
        {"{}", "\"model\" is missing"},
        {"{\"version\":\"2.0\",\"model\":{\"vocab\":{},\"merges\":[]}}", "version"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", "merges is missing"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "id 0 twice"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", "\"a\" twice"},
        {"{\"model\":{\"vocab\":{\"a\":4000000000},\"merges\":[]}}", "ids up to"},
        {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "0 or more"},
        {"{\"model\":{\"vocab\":{\"a\":1.0},\"merges\":[]}}", "fraction"},
        {"{\"model\":{\"vocab\":{\"\xff\":1},\"merges\":[]}}", "UTF-8"},
        {"{\"model\":{\"vocab\":{\"\\ud800\":1},\"merges\":[]}}", "surrogate"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "\"b\", which is not in"},
        {"{\"model\":{\"merges\":[\"a a\"],\"vocab\":{\"a\":0}}}", "makes a token not in"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", "one space"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "string was expected"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]}}", "more than two"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", "dropout"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}", "end_of_word_suffix"},
        {"{\"normalizer\":{\"type\":\"BertNormalizer\"},\"model\":{\"vocab\":{},\"merges\":[]}}", "BertNormalizer"},
        {"{\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"model\":{\"vocab\":{},\"merges\":[]}}",
         "BertPreTokenizer"},
        {"{\"post_processor\":{\"type\":\"RobertaProcessing\"},\"model\":{\"vocab\":{},\"merges\":[]}}",
         "RobertaProcessing"},
        {"{\"decoder\":{\"type\":\"WordPiece\"},\"model\":{\"vocab\":{},\"merges\":[]}}", "WordPiece"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\bx\"},\"behavior\":\"Isolated\","
         "\"invert\":false},"
         "\"model\":{\"vocab\":{},\"merges\":[]}}",
         "byte 0 a construct"},
        {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x*\"},\"behavior\":\"Isolated\",\"invert\":"
         "false},"
         "\"model\":{\"vocab\":{},\"merges\":[]}}",
         "empty string"},
        {"{\"added_tokens\":[" SPECIAL(7, "y") "],\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", "expected was 1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        assert_null(tokenizer_parse(bad[i].json, strlen(bad[i].json), &e));
        if (!strstr(e.text, bad[i].says)) print_message("%s: %s\n", bad[i].json, e.text);
        assert_non_null(strstr(e.text, bad[i].says));
        assert_int_equal(e.kind, ERR_INPUT);
    }
}

static void deep_nesting_is_refused(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    struct err e = {0};
    char *deep = mem_alloc(N);
    memset(deep, '[', N);
    memcpy(deep, "{\"x\":", 5);
    assert_null(tokenizer_parse(deep, N, &e));
    assert_non_null(strstr(e.text, "too deeply"));
    free(deep);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_and_texts_are_the_references),
        cmocka_unit_test(a_damaged_file_is_refused),
        cmocka_unit_test(long_runs_need_no_stack),
        cmocka_unit_test(only_trusted_text_makes_special_tokens),
        cmocka_unit_test(a_cap_on_ids_ends_the_work),
        cmocka_unit_test(bad_text_is_refused),
        cmocka_unit_test(facts_about_tokens),
        cmocka_unit_test(bytes_are_a_tokenizer_too),
        cmocka_unit_test(refusals_are_sentences),
        cmocka_unit_test(deep_nesting_is_refused),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
