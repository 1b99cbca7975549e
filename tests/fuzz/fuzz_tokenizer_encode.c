/* fuzz_tokenizer_encode.c: BPE against the definition of it, written without any cleverness.
 *
 * The first byte picks one of three tokenizers with few letters and many merges; the rest is the text, cut into pieces
 * of changing trust at every 0xff. The ids must be those of the slow way, and the text of the ids must be the text. */
#include "base/utf8.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD "{\"added_tokens\":[{\"id\":%d,\"content\":\"<x>\",\"special\":true,\"normalized\":false}],"
#define SPLIT                                                                                                          \
    "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" "                                                \
    "\"},\"behavior\":\"MergedWithNext\",\"invert\":false},"

struct rule {
    char a[16], b[16];
};
struct model {
    struct tokenizer *t;
    struct token_scratch *s;
    struct rule rule[64];
    int n;
    bool split;
};
static struct model model[3];

/* Tokens made by joining random earlier ones; ranks in random order, as no training would make them. */
static void make_model(struct model *m, unsigned seed, bool split, bool ignore_merges) {
    static const char *const letter[] = {"a", "b", "<", "x", ">", " ", "\xc3\xa9", "\xe6\xbc\xa2"};
    char token[80][16], json[16384];
    int n = 0, at = 0;
    for (; n < 8; n++) strcpy(token[n], letter[n]);
    srand(seed);
    while (n < 60) {
        struct rule *r = &m->rule[m->n];
        strcpy(r->a, token[rand() % n]);
        strcpy(r->b, token[rand() % n]);
        bool fresh = strlen(r->a) + strlen(r->b) < 9;
        for (int i = 0; i < m->n && fresh; i++) fresh = strcmp(m->rule[i].a, r->a) || strcmp(m->rule[i].b, r->b);
        if (!fresh) continue;
        char both[32];
        snprintf(both, sizeof both, "%.15s%.15s", r->a, r->b);
        bool known = false;
        for (int i = 0; i < n; i++) known |= !strcmp(token[i], both);
        if (!known) strcpy(token[n++], both);
        m->n++;
        if (m->n == 64) break;
    }
    for (int i = m->n - 1; i > 0; i--) {
        int k = rand() % (i + 1);
        struct rule swap = m->rule[i];
        m->rule[i] = m->rule[k];
        m->rule[k] = swap;
    }
    at += snprintf(json + at, sizeof json - (size_t)at, HEAD "%s\"model\":{\"ignore_merges\":%s,\"vocab\":{", n,
                   split ? SPLIT : "", ignore_merges ? "true" : "false");
    for (int i = 0; i < n; i++)
        at += snprintf(json + at, sizeof json - (size_t)at, "%s\"%s\":%d", i ? "," : "", token[i], i);
    at += snprintf(json + at, sizeof json - (size_t)at, "},\"merges\":[");
    for (int i = 0; i < m->n; i++)
        at += snprintf(json + at, sizeof json - (size_t)at, "%s[\"%s\",\"%s\"]", i ? "," : "", m->rule[i].a,
                       m->rule[i].b);
    snprintf(json + at, sizeof json - (size_t)at, "]}}");
    struct err e;
    m->t = tokenizer_parse(json, strlen(json), &e);
    if (!m->t) {
        fprintf(stderr, "%s\n%s\n", e.text, json);
        abort();
    }
    m->s = token_scratch_new(m->t);
    m->split = split;
}

/* ---- the slow way ---- */

struct slow {
    const struct model *m;
    struct ids out;
    bool ignore_merges;
};

static void slow_word(struct slow *w, const char *s, size_t n) {
    char(*sym)[16] = calloc(n + 1, 16);
    size_t k = 0;
    int32_t whole = w->ignore_merges ? tokenizer_id_of(w->m->t, s, n) : -1;
    if (whole >= 0 && whole != tokenizer_id_of(w->m->t, "<x>", 3)) { /* the added token is none of the model's */
        ids_add(&w->out, whole);
        free(sym);
        return;
    }
    for (size_t i = 0, c; i < n; i += c) {
        uint32_t cp;
        c = utf8_get(s + i, n - i, &cp);
        memcpy(sym[k], s + i, c);
        sym[k][c] = 0;
        if (tokenizer_id_of(w->m->t, sym[k], c) >= 0)
            k++; /* an unknown character vanishes */
        else
            memset(sym[k], 0, 16);
    }
    for (int r = 0; r < w->m->n;) {
        const struct rule *rule = &w->m->rule[r];
        size_t i = 0;
        while (i + 1 < k && (strcmp(sym[i], rule->a) || strcmp(sym[i + 1], rule->b))) i++;
        if (i + 1 >= k) {
            r++;
            continue;
        }
        memcpy(sym[i] + strlen(rule->a), rule->b, strlen(rule->b) + 1);
        memmove(sym[i + 1], sym[i + 2], (k - i - 2) * 16);
        k--;
        r = 0;
    }
    for (size_t i = 0; i < k; i++) ids_add(&w->out, tokenizer_id_of(w->m->t, sym[i], strlen(sym[i])));
    free(sym);
}

static void slow_text(struct slow *w, const char *s, size_t n) {
    size_t start = 0;
    for (size_t i = 1; i <= n && n; i++)
        if (i == n || (w->m->split && s[i] == ' ')) {
            slow_word(w, s + start, i - start);
            start = i;
        }
}

static void slow_encode(struct slow *w, const char *s, const char *trust, size_t n) {
    size_t start = 0;
    for (size_t i = 0; i + 3 <= n; i++) {
        if (memcmp(s + i, "<x>", 3) || !trust[i] || !trust[i + 1] || !trust[i + 2]) continue;
        slow_text(w, s + start, i - start);
        ids_add(&w->out, tokenizer_id_of(w->m->t, "<x>", 3));
        start = i + 3;
        i += 2;
    }
    slow_text(w, s + start, n - start);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const alphabet[16] = {"a", "b", "<x>", "<", "x",  ">",  " ", "\xc3\xa9", "\xe6\xbc\xa2",
                                             "a", "b", "ab",  "?", "<x", "x>", NULL};
    if (!model[0].t)
        for (int i = 0; i < 3; i++) make_model(&model[i], 3u + (unsigned)i, i > 0, i == 2);
    if (size < 2 || size > 600) return 0;
    struct model *m = &model[data[0] % 3];
    struct text_piece piece[64];
    char text[2048], trust[2048];
    size_t n = 0, pieces = 0, from = 0;
    for (size_t i = 1; i < size; i++) {
        const char *a = alphabet[data[i] % 16];
        bool end = !a && pieces < 63;
        if (a) {
            memcpy(text + n, a, strlen(a));
            memset(trust + n, !(pieces & 1), strlen(a));
            n += strlen(a);
        }
        if (end || i + 1 == size) {
            piece[pieces] = (struct text_piece){text + from, n - from, !(pieces & 1)};
            pieces++;
            from = n;
        }
    }
    struct slow slow = {.m = m, .ignore_merges = data[0] % 3 == 2};
    struct ids ids = {0};
    struct err e;
    slow_encode(&slow, text, trust, n);
    if (tokenizer_encode(m->t, m->s, &(struct encode_args){piece, pieces, TOK_PARSE_SPECIAL, 0}, &ids, &e)) abort();
    if (ids.n != slow.out.n || (ids.n && memcmp(ids.v, slow.out.v, ids.n * sizeof *ids.v))) abort();
    ids_release(&ids);
    ids_release(&slow.out);
    return 0;
}
