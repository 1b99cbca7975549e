/* stop.c: see stop.h. A set is constant; a stop has one owner. */
#include "text/stop.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct node {
    uint32_t child, sibling; /* 0: none (the root is nobody's child) */
    uint32_t fail;           /* the longest proper end of this node's string that some string starts with */
    uint16_t depth;
    unsigned char byte;
    int16_t found; /* a string that ends here, itself or by way of fail; -1 */
};
struct stop_set {
    struct node *node;
    uint32_t n;
    uint16_t length[STOP_MAX];
    uint32_t root[256]; /* the root's children: the step taken most */
};

static uint32_t child(const struct stop_set *set, uint32_t i, unsigned char b) {
    if (!i) return set->root[b];
    uint32_t c = set->node[i].child;
    while (c && set->node[c].byte != b) c = set->node[c].sibling;
    return c;
}

static uint32_t step(const struct stop_set *set, uint32_t i, unsigned char b) {
    for (;;) {
        uint32_t c = child(set, i, b);
        if (c || !i) return c;
        i = set->node[i].fail;
    }
}

static void insert(struct stop_set *set, int which, struct stop_string str) {
    uint32_t at = 0;
    for (size_t k = 0; k < str.n; k++) {
        unsigned char b = (unsigned char)str.s[k];
        uint32_t next = child(set, at, b);
        if (!next) {
            next = set->n++;
            set->node[next] =
                (struct node){.sibling = set->node[at].child, .depth = (uint16_t)(k + 1), .byte = b, .found = -1};
            set->node[at].child = next;
            if (!at) set->root[b] = next;
        }
        at = next;
    }
    if (set->node[at].found < 0) set->node[at].found = (int16_t)which;
    set->length[which] = (uint16_t)str.n;
}

/* Breadth first, so that the nodes a fail link may lead to are done. */
static void link_fails(struct stop_set *set) {
    uint32_t *queue = mem_array(set->n, sizeof *queue), head = 0, tail = 0;
    queue[tail++] = 0;
    while (head < tail) {
        uint32_t at = queue[head++];
        for (uint32_t c = set->node[at].child; c; c = set->node[c].sibling) {
            struct node *n = &set->node[c];
            n->fail = at ? step(set, set->node[at].fail, n->byte) : 0;
            if (n->found < 0) n->found = set->node[n->fail].found; /* a longer one starts earlier and wins */
            queue[tail++] = c;
        }
    }
    free(queue);
}

struct stop_set *stop_set_new(const struct stop_string *str, size_t n, struct err *e) {
    size_t all = 1;
    if (n > STOP_MAX) return err_input(e, "%zu stop strings; at most %d are accepted", n, STOP_MAX), NULL;
    for (size_t i = 0; i < n; i++) {
        if (!str[i].n || str[i].n > STOP_MAX_BYTES)
            return err_input(e, "stop string %zu has %zu bytes; 1 to %d are accepted", i + 1, str[i].n, STOP_MAX_BYTES),
                   NULL;
        all += str[i].n;
    }
    struct stop_set *set = mem_zalloc(1, sizeof *set);
    set->node = mem_zalloc(all, sizeof *set->node);
    set->node[0].found = -1;
    set->n = 1;
    for (size_t i = 0; i < n; i++) insert(set, (int)i, str[i]);
    link_fails(set);
    return set;
}

void stop_set_free(struct stop_set *set) {
    if (!set) return;
    free(set->node);
    free(set);
}

void stop_init(struct stop *s, const struct stop_set *set, bool include) {
    *s = (struct stop){.set = set, .include = include, .matched = -1};
    buf_init(&s->held, SIZE_MAX / 4);
}

void stop_release(struct stop *s) { buf_release(&s->held); }

/* Hand on the first n bytes of what is held and of the new text, and hold the rest. */
static void hand_on(struct stop *s, const char *text, size_t n_text, size_t n, struct buf *out) {
    size_t old = n < s->held.len ? n : s->held.len;
    if (old) {
        buf_add(out, s->held.data, old);
        memmove(s->held.data, s->held.data + old, s->held.len - old);
        s->held.len -= old;
    }
    buf_add(out, text, n - old);
    buf_add(&s->held, text + (n - old), n_text - (n - old));
}

bool stop_push(struct stop *s, const char *text, size_t n, struct buf *out) {
    const struct stop_set *set = s->set;
    if (s->matched >= 0) return true;
    for (size_t i = 0; i < n; i++) {
        s->state = step(set, s->state, (unsigned char)text[i]);
        int found = set->node[s->state].found;
        if (found < 0) continue;
        s->matched = found;
        size_t end = s->held.len + i + 1;
        hand_on(s, text, i + 1, s->include ? end : end - set->length[found], out);
        buf_reset(&s->held);
        return true;
    }
    hand_on(s, text, n, s->held.len + n - set->node[s->state].depth, out);
    return false;
}

void stop_finish(struct stop *s, struct buf *out) {
    if (s->matched < 0) buf_add(out, buf_str(&s->held), s->held.len);
    buf_reset(&s->held);
    s->state = 0;
}
