/* pretok.c: see pretok.h. Steps are constant; a scratch belongs to one thread. Recursion is as deep as there are steps.
 */
#include "text/pretok.h"

#include "text/unicode.h"

#include <string.h>

void pretok_scratch_init(struct pretok_scratch *s) {
    *s = (struct pretok_scratch){.bpe = bpe_scratch_new()};
    for (int i = 0; i < PRE_STEPS; i++) {
        buf_init(&s->text[i], SIZE_MAX / 4);
        buf_init(&s->tmp[i], SIZE_MAX / 4);
    }
}

void pretok_scratch_release(struct pretok_scratch *s) {
    for (int i = 0; i < PRE_STEPS; i++) {
        buf_release(&s->text[i]);
        buf_release(&s->tmp[i]);
    }
    bpe_scratch_free(s->bpe);
}

void pre_release(struct pre_step *step, size_t n) {
    for (size_t i = 0; i < n; i++) pattern_free(step[i].pattern);
}

static int run(const struct pretok *p, struct pretok_scratch *s, size_t i, struct pretok_text t);

static int word(const struct pretok *p, struct pretok_scratch *s, struct pretok_text t) {
    if (bpe_word(p->bpe, s->bpe, (struct bpe_text){t.s, t.n, t.slack}, s->out, s->e)) return -1;
    return s->out->n > s->max_ids;
}

static int rest(const struct pretok *p, struct pretok_scratch *s, size_t i, struct pretok_text t) {
    if (!t.n) return 0;
    return i == p->n ? word(p, s, t) : run(p, s, i, t);
}

static struct pretok_text sub(struct pretok_text t, size_t from, size_t to) {
    return (struct pretok_text){t.s + from, to - from, t.n - to + t.slack, t.first && from == 0};
}

/* A pattern that matches everywhere, in the last step: straight to the model. */
static int scan_words(const struct pretok *p, struct pretok_scratch *s, pattern_scan *scan, struct pretok_text t) {
    while (t.n) {
        size_t w = scan(t.s, t.n);
        struct bpe_text piece = {t.s, w, t.n - w + t.slack};
        if (bpe_word(p->bpe, s->bpe, piece, s->out, s->e)) return -1;
        if (s->out->n > s->max_ids) return 1;
        t.s += w;
        t.n -= w;
    }
    return 0;
}

/* Whether the piece goes on the one before it, given what the two are. */
static bool joins(enum split_behavior how, bool prev_match, bool match, bool have) {
    switch (how) {
    case SPLIT_CONTIGUOUS: return have && match == prev_match;
    case SPLIT_MERGED_WITH_PREVIOUS: return have && match && !prev_match;
    case SPLIT_MERGED_WITH_NEXT: return have && prev_match && !match;
    default: return false;
    }
}

static int split(const struct pretok *p, struct pretok_scratch *s, size_t i, struct pretok_text t) {
    const struct pre_step *step = &p->step[i];
    struct pattern_iter it;
    size_t start = 0, at = 0, end; /* [start, at) is collected and not yet handed on */
    bool match, prev = false;
    int r, rc;
    pattern_start(&it, step->pattern, t.s, t.n, &s->tmp[i]);
    while ((r = pattern_next(&it, &end, &match, s->e)) > 0) {
        match ^= step->invert;
        if (!joins(step->behavior, prev, match, at > start)) {
            if ((rc = rest(p, s, i + 1, sub(t, start, at)))) return rc;
            start = at;
        }
        at = end;
        if (match && step->behavior == SPLIT_REMOVED) start = at;
        prev = match;
    }
    return r < 0 ? -1 : rest(p, s, i + 1, sub(t, start, at));
}

static int split_or_rest(const struct pretok *p, struct pretok_scratch *s, size_t i, struct pretok_text t) {
    const struct pre_step *step = &p->step[i];
    if (!step->pattern) return rest(p, s, i + 1, t);
    pattern_scan *scan = pattern_scanner(step->pattern);
    /* A byte-level step behind it that changes nothing is the usual case. */
    bool last = i + 1 == p->n || (i + 2 == p->n && p->step[i + 1].kind == PRE_BYTE_LEVEL && !p->step[i + 1].pattern &&
                                  !p->step[i + 1].prefix_space);
    if (scan && last && step->behavior == SPLIT_ISOLATED) return scan_words(p, s, scan, t);
    return split(p, s, i, t);
}

static struct pretok_text made(const struct buf *b, bool first) {
    return (struct pretok_text){buf_str(b), b->len, 0, first};
}

static int metaspace(const struct pretok *p, struct pretok_scratch *s, size_t i, struct pretok_text t) {
    const struct pre_step *step = &p->step[i];
    struct buf *b = &s->text[i];
    size_t n = strlen(step->replacement);
    buf_reset(b);
    bool there = *t.s == ' ' || (t.n >= n && !memcmp(t.s, step->replacement, n));
    if (!there && (step->prepend == PREPEND_ALWAYS || (step->prepend == PREPEND_FIRST && t.first)))
        buf_add(b, step->replacement, n);
    for (const char *q, *end = t.s + t.n; t.s < end; t.s = q + 1) {
        q = memchr(t.s, ' ', (size_t)(end - t.s));
        if (!q) {
            buf_add(b, t.s, (size_t)(end - t.s));
            break;
        }
        buf_add(b, t.s, (size_t)(q - t.s));
        buf_add(b, step->replacement, n);
    }
    return split_or_rest(p, s, i, made(b, t.first));
}

static int byte_level(const struct pretok *p, struct pretok_scratch *s, size_t i, struct pretok_text t) {
    if (p->step[i].prefix_space && *t.s != ' ') {
        struct buf *b = &s->text[i];
        buf_reset(b);
        buf_addc(b, ' ');
        buf_add(b, t.s, t.n);
        t = made(b, t.first);
    }
    return split_or_rest(p, s, i, t);
}

static int run(const struct pretok *p, struct pretok_scratch *s, size_t i, struct pretok_text t) {
    switch (p->step[i].kind) {
    case PRE_METASPACE: return metaspace(p, s, i, t);
    case PRE_BYTE_LEVEL: return byte_level(p, s, i, t);
    default: return split_or_rest(p, s, i, t);
    }
}

int pretok_run(const struct pretok *p, struct pretok_scratch *s, struct pretok_text t) { return rest(p, s, 0, t); }
