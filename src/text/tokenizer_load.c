/* tokenizer_load.c: from tokenizer.json to a struct tokenizer. Runs on the loading thread.
 *
 * The two big parts, vocabulary and merges, are read straight from the text into tables; the rest is small and goes
 * through a JSON tree (tokenizer_parts.c). Refuses, with a sentence, whatever the reference refuses and whatever is not
 * implemented. */
#include "base/file.h"
#include "text/tok_impl.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 100 << 20, MAX_PART = 16 << 20, MAX_MERGES = 1 << 23 };

struct model_parts {
    const char *merges; /* met before the vocabulary: read later */
    size_t merges_n;
    bool have_vocab, have_merges;
    char *unk;
    struct bpe_rule *rule;
    size_t n_rules, cap;
    struct buf tmp; /* translated strings */
};

static bool is(const char *s, size_t n, const char *word) { return n == strlen(word) && !memcmp(s, word, n); }
static int shown(size_t n) { return (int)(n < 100 ? n : 100); }

static struct vocab_key key_of(struct tokenizer *t, struct model_parts *m, size_t at, const char *s, size_t n) {
    return vocab_key(&t->bpe.vocab, s, n, m->tmp.data + at);
}

static int vocab_error(int rc, const char *s, size_t n, uint32_t id, struct err *e) {
    if (rc == -1) return err_input(e, "model.vocab names the token \"%.*s\" twice", shown(n), s);
    if (rc == -2)
        return err_input(e, "model.vocab gives the id %u twice, the second time to \"%.*s\"", id, shown(n), s);
    return err_input(e, "model.vocab: token \"%.*s\" with id %u: at most %d bytes and ids up to %d are accepted",
                     shown(n), s, id, VOCAB_MAX_TOKEN, VOCAB_MAX_ID);
}

static int read_vocab(struct tokenizer *t, struct model_parts *m, struct json_pull *j, struct err *e) {
    bool first = true;
    int r;
    if (pull_enter(j, '{')) return -1;
    while ((r = pull_more(j, '}', &first)) > 0) {
        const char *s;
        size_t n;
        uint32_t id;
        if (pull_key(j, &s, &n) || pull_uint(j, &id)) return -1;
        if (n > VOCAB_MAX_TOKEN) return vocab_error(-3, s, n, id, e);
        int rc = vocab_add(&t->bpe.vocab, key_of(t, m, 0, s, n), id);
        if (rc) return vocab_error(rc, s, n, id, e);
    }
    m->have_vocab = true;
    return r;
}

/* A merge as one string: "a b", with exactly one space. */
static int split_merge(struct model_parts *m, const char *s, size_t n, size_t *a, struct err *e) {
    const char *space = memchr(s, ' ', n);
    if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - s)))
        return err_input(e, "model.merges: merge %zu, \"%.*s\", is not two tokens with one space between",
                         m->n_rules + 1, shown(n), s);
    *a = (size_t)(space - s);
    return 0;
}

/* The two strings of the next merge; 1 when it is a line to leave out. */
static int next_merge(struct model_parts *m, struct json_pull *j, const char *s[2], size_t n[2], struct err *e) {
    bool first = true;
    if (pull_peek(j) == '"') {
        if (pull_string(j, &s[0], &n[0])) return -1;
        if (n[0] >= 8 && !memcmp(s[0], "#version", 8)) return 1;
        size_t all = n[0];
        if (split_merge(m, s[0], all, &n[0], e)) return -1;
        s[1] = s[0] + n[0] + 1;
        n[1] = all - n[0] - 1;
        return 0;
    }
    if (pull_enter(j, '[') || pull_more(j, ']', &first) < 0 || pull_string(j, &s[0], &n[0])) return -1;
    if (pull_more(j, ']', &first) < 0 || pull_string(j, &s[1], &n[1])) return -1;
    int r = pull_more(j, ']', &first);
    return r ? pull_fail(j, "a merge has more than two tokens") : 0;
}

static int unknown_part(struct model_parts *m, const char *s, size_t n, struct err *e) {
    return err_input(e, "model.merges: merge %zu needs the token \"%.*s\", which is not in model.vocab", m->n_rules + 1,
                     shown(n), s);
}

static int add_merge(struct tokenizer *t, struct model_parts *m, const char *s[2], const size_t n[2], struct err *e) {
    char *both = m->tmp.data;
    struct bpe_rule rule;
    if (n[0] > VOCAB_MAX_TOKEN || n[1] > VOCAB_MAX_TOKEN) return unknown_part(m, s[0], n[0], e);
    struct vocab_key a = key_of(t, m, 0, s[0], n[0]), b = key_of(t, m, n[0], s[1], n[1]);
    int32_t left = vocab_find(&t->bpe.vocab, a), right = vocab_find(&t->bpe.vocab, b), made;
    if (left < 0) return unknown_part(m, s[0], n[0], e);
    if (right < 0) return unknown_part(m, s[1], n[1], e);
    if (a.kind == VOCAB_MAPPED && b.kind == VOCAB_MAPPED) {
        if (a.s != both) memcpy(both, a.s, a.n); /* the alphabet of bytes already put them there, b behind a gap */
        memmove(both + a.n, b.s, b.n);
        made = vocab_find_bytes(&t->bpe.vocab, both, a.n + b.n);
    } else { /* some character is outside the byte alphabet, and so it is in the sum */
        memcpy(both, s[0], n[0]);
        memcpy(both + n[0], s[1], n[1]);
        made = vocab_find(&t->bpe.vocab, (struct vocab_key){both, n[0] + n[1], VOCAB_RAW});
    }
    if (made < 0)
        return err_input(e, "model.merges: merge %zu, of \"%.*s\" and \"%.*s\", makes a token not in model.vocab",
                         m->n_rules + 1, shown(n[0]), s[0], shown(n[1]), s[1]);
    rule = (struct bpe_rule){(uint32_t)left, (uint32_t)right, (uint32_t)made};
    if (m->n_rules == m->cap) {
        m->cap += m->cap / 2 + 4096;
        m->rule = mem_grow(m->rule, m->cap, sizeof *m->rule);
    }
    m->rule[m->n_rules++] = rule;
    return 0;
}

static int read_merges(struct tokenizer *t, struct model_parts *m, struct json_pull *j, struct err *e) {
    bool first = true, begun = false;
    char form = 0;
    int r, rc;
    if (pull_enter(j, '[')) return -1;
    while ((r = pull_more(j, ']', &first)) > 0) {
        const char *s[2];
        size_t n[2];
        char c = (char)pull_peek(j);
        if (begun && c != form) return pull_fail(j, "merges are partly strings, partly pairs");
        form = c;
        begun = true;
        if ((rc = next_merge(m, j, s, n, e)) < 0) return -1;
        if (rc > 0) continue;
        if (m->n_rules == MAX_MERGES) return err_input(e, "model.merges has more than %d entries", MAX_MERGES);
        if (add_merge(t, m, s, n, e)) return -1;
    }
    m->have_merges = true;
    return r;
}

/* null, or a string of at most `max` bytes; *out is set for a string. */
static int read_text(struct json_pull *j, size_t max, char **out) {
    const char *s;
    size_t n;
    if (pull_peek(j) == 'n') return pull_span(j, &s, &n);
    if (pull_string(j, &s, &n)) return -1;
    if (n > max) return pull_fail(j, "a string longer than is supported here");
    free(*out);
    *out = mem_strndup(s, n);
    return 0;
}

static int read_bool(struct json_pull *j, bool *out) {
    const char *s;
    size_t n;
    if (pull_span(j, &s, &n)) return -1;
    *out = is(s, n, "true");
    return *out || is(s, n, "false") || is(s, n, "null") ? 0 : pull_fail(j, "true or false was expected");
}

static int read_dropout(struct json_pull *j, struct err *e) {
    const char *s;
    size_t n;
    if (pull_span(j, &s, &n)) return -1;
    if (is(s, n, "null") || is(s, n, "0") || is(s, n, "0.0")) return 0;
    return err_input(e, "model.dropout %.*s is not supported: it makes tokens random", shown(n), s);
}

static int read_affix(struct json_pull *j, const char *key, struct err *e) {
    char *s = NULL;
    if (read_text(j, 1000, &s)) return free(s), -1;
    bool empty = !s || !*s;
    free(s);
    return empty ? 0 : err_input(e, "model.%s is not supported unless empty", key);
}

static int read_type(struct json_pull *j, struct err *e) {
    const char *s;
    size_t n;
    if (pull_string(j, &s, &n)) return -1;
    return is(s, n, "BPE") ? 0 : err_input(e, "model type \"%.*s\" is not supported; BPE is", shown(n), s);
}

static int model_member(struct tokenizer *t, struct model_parts *m, struct json_pull *j, struct err *e) {
    const char *k, *s;
    size_t n, len;
    if (pull_key(j, &k, &n)) return -1;
    if (is(k, n, "type")) return read_type(j, e);
    if (is(k, n, "dropout")) return read_dropout(j, e);
    if (is(k, n, "unk_token")) return read_text(j, VOCAB_MAX_TOKEN, &m->unk);
    if (is(k, n, "continuing_subword_prefix")) return read_affix(j, "continuing_subword_prefix", e);
    if (is(k, n, "end_of_word_suffix")) return read_affix(j, "end_of_word_suffix", e);
    if (is(k, n, "fuse_unk")) return read_bool(j, &t->bpe.fuse_unk);
    if (is(k, n, "byte_fallback")) return read_bool(j, &t->bpe.byte_fallback);
    if (is(k, n, "ignore_merges")) return read_bool(j, &t->bpe.ignore_merges);
    if (is(k, n, "vocab")) return m->have_vocab ? pull_fail(j, "a second vocab") : read_vocab(t, m, j, e);
    if (!is(k, n, "merges")) return pull_span(j, &s, &len);
    if (m->have_merges || m->merges) return pull_fail(j, "second merges");
    return m->have_vocab ? read_merges(t, m, j, e) : pull_span(j, &m->merges, &m->merges_n);
}

static int late_merges(struct tokenizer *t, struct model_parts *m, struct err *e) {
    struct json_pull j;
    pull_init(&j, m->merges, m->merges_n, e);
    int rc = read_merges(t, m, &j, e);
    pull_release(&j);
    return rc ? err_prefix(e, "model.merges: ") : 0;
}

static int finish_model(struct tokenizer *t, struct model_parts *m, struct err *e) {
    if (!m->have_vocab) return err_input(e, "model.vocab is missing");
    if (m->merges && late_merges(t, m, e)) return -1;
    if (!m->have_merges) return err_input(e, "model.merges is missing");
    struct bpe *b = &t->bpe;
    bpe_build(b, m->rule, m->n_rules);
    if (m->unk) {
        size_t n = strlen(m->unk);
        b->has_unk = true;
        b->unk = n > VOCAB_MAX_TOKEN ? -1 : vocab_find(&b->vocab, key_of(t, m, 0, m->unk, n));
    }
    if (b->vocab.byte_level && b->byte_fallback && !b->all_bytes)
        return err_input(e, "model.byte_fallback with ByteLevel is only supported if every byte has a token");
    return 0;
}

int load_model(struct tokenizer *t, struct json_pull *j, struct err *e) {
    struct model_parts m = {0};
    bool first = true;
    int r = -1;
    bpe_release(&t->bpe);
    bpe_init(&t->bpe, t->n_pre && t->pre[t->n_pre - 1].kind == PRE_BYTE_LEVEL);
    buf_init(&m.tmp, SIZE_MAX / 4);
    buf_room(&m.tmp, 2 * VOCAB_MAX_TOKEN + 2);
    if (pull_enter(j, '{')) goto out;
    while ((r = pull_more(j, '}', &first)) > 0)
        if ((r = model_member(t, &m, j, e))) goto out;
    if (!r) r = finish_model(t, &m, e);
out:
    buf_release(&m.tmp);
    free(m.rule);
    free(m.unk);
    return r;
}

/* ---- the file as a whole ---- */

struct part {
    const char *name;
    int (*load)(struct tokenizer *t, const json_t *j, struct err *e);
    const char *s; /* the part's text, once met */
    size_t n;
    bool loaded;
};

static int load_part(struct tokenizer *t, struct part *p, struct err *e) {
    if (!p->load || p->loaded) return 0;
    p->loaded = true;
    if (!p->s) return 0;
    if (p->n > MAX_PART) return err_input(e, "\"%s\" has %zu bytes; at most %d are accepted", p->name, p->n, MAX_PART);
    json_error_t je;
    json_t *j = json_loadb(p->s, p->n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    if (!j) return err_input(e, "\"%s\": %s", p->name, je.text);
    int rc = json_is_null(j) ? 0 : p->load(t, j, e);
    json_decref(j);
    return rc;
}

enum { VERSION, NORMALIZER, PRE, POST, DECODER, ADDED, MODEL, PARTS };

static int load_version(struct tokenizer *t, const json_t *j, struct err *e) {
    (void)t;
    const char *s = json_string_value(j);
    if (s && !strcmp(s, "1.0")) return 0;
    return err_input(e, "\"version\" is not \"1.0\"");
}

static int read_part(struct tokenizer *t, struct part *part, struct json_pull *j, struct err *e) {
    const char *k, *s;
    size_t n, len;
    if (pull_key(j, &k, &n)) return -1;
    for (int i = 0; i < PARTS; i++) {
        struct part *p = &part[i];
        if (!is(k, n, p->name)) continue;
        if (p->s) return pull_fail(j, "a second member of that name");
        pull_peek(j);
        p->s = j->p;
        if (i == MODEL && part[PRE].s) { /* the usual order: no need to read the big part twice */
            p->loaded = true;
            return load_part(t, &part[PRE], e) || load_model(t, j, e) ? -1 : 0;
        }
        return pull_span(j, &p->s, &p->n);
    }
    return pull_span(j, &s, &len);
}

static int late_model(struct tokenizer *t, struct part *p, struct err *e) {
    if (p->loaded) return 0;
    if (!p->s) return err_input(e, "\"model\" is missing");
    struct json_pull j;
    pull_init(&j, p->s, p->n, e);
    int rc = load_model(t, &j, e);
    pull_release(&j);
    return rc;
}

static int load_all(struct tokenizer *t, struct json_pull *j, struct err *e) {
    struct part part[PARTS] = {{.name = "version", .load = load_version},
                               {.name = "normalizer", .load = load_normalizer},
                               {.name = "pre_tokenizer", .load = load_pre_tokenizer},
                               {.name = "post_processor", .load = load_post_processor},
                               {.name = "decoder", .load = load_decoder},
                               {.name = "added_tokens", .load = load_added},
                               {.name = "model"}};
    bool first = true;
    int r;
    if (pull_enter(j, '{')) return -1;
    while ((r = pull_more(j, '}', &first)) > 0)
        if (read_part(t, part, j, e)) return -1;
    if (r || pull_end(j)) return -1;
    for (int i = 0; i < ADDED; i++)
        if (load_part(t, &part[i], e)) return -1;
    if (late_model(t, &part[MODEL], e) || load_part(t, &part[ADDED], e)) return -1;
    return load_pieces(t, e);
}

struct tokenizer *tokenizer_parse(const char *json, size_t n, struct err *e) {
    struct tokenizer *t = tokenizer_blank();
    struct json_pull j;
    pull_init(&j, json, n, e);
    int rc = load_all(t, &j, e);
    pull_release(&j);
    if (!rc) return t;
    tokenizer_close(t);
    return NULL;
}

struct tokenizer *tokenizer_open(const char *dir, struct err *e) {
    char *path = path_join(dir, "tokenizer.json"), *text = NULL;
    struct tokenizer *t = NULL;
    size_t n = 0;
    if (file_read(path, MAX_FILE, &text, &n, e)) goto out;
    t = tokenizer_parse(text, n, e);
    if (!t) {
        err_prefix(e, "%s: ", path);
        goto out;
    }
    if (load_names(t, dir, e)) {
        tokenizer_close(t);
        t = NULL;
    }
out:
    free(text);
    free(path);
    return t;
}
