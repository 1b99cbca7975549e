/* added.c: see added.h. Built by the loading thread, constant afterwards. */
#include "text/added.h"

#include "base/mem.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* A trie; a node's children are found in one open-addressing table keyed by (node, byte). */
struct edge {
    uint32_t key; /* node << 8 | byte; UINT32_MAX: free */
    uint32_t child;
};
struct added_set {
    struct edge *edge;
    size_t mask, n_edges;
    const struct added_token **token; /* [n_nodes] the token that ends at a node */
    size_t n_nodes, cap;
    bool starts[256]; /* some token starts with this byte */
};

static void edges_new(struct added_set *s, size_t n) {
    s->edge = mem_array(n, sizeof *s->edge);
    memset(s->edge, 0xff, n * sizeof *s->edge);
    s->mask = n - 1;
}

static uint32_t node_new(struct added_set *s) {
    if (s->n_nodes == s->cap) {
        s->cap = s->cap * 2 + 64;
        s->token = mem_grow(s->token, s->cap, sizeof *s->token);
    }
    s->token[s->n_nodes] = NULL;
    return (uint32_t)s->n_nodes++;
}

struct added_set *added_set_new(void) {
    struct added_set *s = mem_zalloc(1, sizeof *s);
    edges_new(s, 256);
    node_new(s);
    return s;
}

void added_set_free(struct added_set *s) {
    if (!s) return;
    free(s->edge);
    free(s->token);
    free(s);
}

bool added_set_empty(const struct added_set *s) { return s->n_nodes == 1; }

static struct edge *edge_find(const struct added_set *s, uint32_t node, unsigned char byte) {
    uint32_t key = node << 8 | byte;
    size_t i = (key * 0x9e3779b1u >> 7) & s->mask;
    while (s->edge[i].key != key && s->edge[i].key != UINT32_MAX) i = (i + 1) & s->mask;
    return &s->edge[i];
}

static void edges_grow(struct added_set *s) {
    struct edge *old = s->edge;
    size_t n = s->mask + 1;
    edges_new(s, n * 4);
    for (size_t i = 0; i < n; i++)
        if (old[i].key != UINT32_MAX) *edge_find(s, old[i].key >> 8, (unsigned char)old[i].key) = old[i];
    free(old);
}

void added_set_add(struct added_set *s, const struct added_token *t, const char *str, size_t n) {
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        if (s->n_edges * 2 > s->mask) edges_grow(s);
        struct edge *e = edge_find(s, node, (unsigned char)str[i]);
        if (e->key == UINT32_MAX) {
            *e = (struct edge){node << 8 | (unsigned char)str[i], node_new(s)};
            s->n_edges++;
        }
        node = e->child;
    }
    if (!node) return; /* an empty string is never found */
    s->starts[(unsigned char)str[0]] = true;
    if (!s->token[node]) s->token[node] = t;
}

static bool allowed(const struct added_iter *it, const struct added_token *t, size_t start, size_t n) {
    if (!t->special) return true;
    return it->special && (!it->text.mask || !memchr(it->text.mask + start, 0, n));
}

/* The longest allowed token at `at`: its length, 0 for none. */
static size_t longest_at(const struct added_iter *it, size_t at, const struct added_token **t) {
    const struct added_set *s = it->set;
    uint32_t node = 0;
    size_t best = 0;
    for (size_t i = at; i < it->text.n; i++) {
        const struct edge *e = edge_find(s, node, (unsigned char)it->text.s[i]);
        if (e->key == UINT32_MAX) break;
        node = e->child;
        if (!s->token[node] || !allowed(it, s->token[node], at, i + 1 - at)) continue;
        *t = s->token[node];
        best = i + 1 - at;
    }
    return best;
}

static bool is(struct masked t, size_t at, unsigned bit) {
    size_t w;
    return uc_class(uc_get(t.s + at, &w)) & bit;
}

static bool stands_alone(struct masked t, size_t start, size_t end) {
    return !(start && is(t, uc_before(t.s, start), UC_WORD)) && !(end < t.n && is(t, end, UC_WORD));
}

/* Take in the white space around a token that asks for it. */
static void widen(struct added_iter *it, const struct added_token *t, size_t *start, size_t *end) {
    while (t->lstrip && *start > it->done) {
        size_t p = uc_before(it->text.s, *start);
        if (!is(it->text, p, UC_SPACE)) break;
        *start = p;
    }
    while (t->rstrip && *end < it->text.n && is(it->text, *end, UC_SPACE)) {
        size_t w;
        uc_get(it->text.s + *end, &w);
        *end += w;
    }
    if (*start < it->done && t->lstrip) *start = it->done;
}

static bool find(struct added_iter *it) {
    const char *s = it->text.s;
    while (it->scan < it->text.n) {
        if (!it->set->starts[(unsigned char)s[it->scan]]) {
            it->scan++;
            continue;
        }
        const struct added_token *t = NULL;
        size_t start = it->scan, n = longest_at(it, start, &t), end = start + n;
        it->scan += n ? n : 1;
        if (!n || (t->single_word && !stands_alone(it->text, start, end))) continue;
        widen(it, t, &start, &end);
        it->held = t;
        it->held_start = start;
        it->held_end = end;
        return true;
    }
    return false;
}

int added_next(struct added_iter *it, size_t *start, size_t *end, const struct added_token **t) {
    *t = NULL;
    *start = it->done;
    *end = it->text.n;
    if (!it->held && !added_set_empty(it->set)) find(it);
    if (!it->held) {
        if (it->done >= it->text.n) return 0;
        it->done = it->text.n;
        return 1;
    }
    if (it->done < it->held_start) {
        *end = it->done = it->held_start;
        return 1;
    }
    *t = it->held;
    *start = it->held_start;
    *end = it->done = it->held_end;
    it->held = NULL;
    return 1;
}
