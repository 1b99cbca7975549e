/* prefetch.c: reading a checkpoint's pages before the first request needs them. The calling thread and helpers that it
 * starts and joins; nothing is changed. A file that shrank since it was opened ends in the program's SIGBUS handler. */
#include "model/weights.h"

#include "base/mem.h"
#include "model/slots.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS_MAX = 64 };
static const size_t CHUNK = 16 << 20;

struct range {
    const char *data, *file;
    size_t n;
};

struct prefetch {
    const struct prefetch_args *a;
    struct range *ranges;
    size_t n_ranges, all;
    pthread_mutex_t lock; /* over all that follows, and the calls of progress */
    size_t at, offset, done;
};

/* What the ranks read of one tensor. Their rows follow each other. */
static int add_range(void *arg, const struct slot *s) {
    struct prefetch *p = arg;
    const struct prefetch_args *a = p->a;
    const struct tensor *t = checkpoint_find(a->from, s->name);
    struct range r = {.data = t ? t->data : NULL, .file = t ? t->file : NULL, .n = t ? t->bytes : 0};
    if (!r.n) return 0;
    struct shard last = {.rank = a->first.rank + a->n_local - 1, .n_ranks = a->first.n_ranks};
    struct part from = slot_part(s, a->config, a->first), to = slot_part(s, a->config, last);
    if (!s->vector) {
        size_t row = t->bytes / (size_t)s->n;
        r.data += (size_t)from.row * row;
        r.n = (size_t)(to.row + to.n - from.row) * row;
    }
    p->ranges = mem_grow(p->ranges, p->n_ranges + 1, sizeof *p->ranges);
    p->ranges[p->n_ranges++] = r;
    p->all += r.n;
    return 0;
}

/* Chunks stay within one range. */
static bool take(struct prefetch *p, struct range *c) {
    pthread_mutex_lock(&p->lock);
    while (p->at < p->n_ranges && p->offset >= p->ranges[p->at].n) {
        p->at++;
        p->offset = 0;
    }
    bool any = p->at < p->n_ranges;
    if (any) {
        const struct range *r = &p->ranges[p->at];
        size_t left = r->n - p->offset;
        *c = (struct range){.data = r->data + p->offset, .file = r->file, .n = left < CHUNK ? left : CHUNK};
        p->offset += c->n;
    }
    pthread_mutex_unlock(&p->lock);
    return any;
}

static void touch(const struct range *c, size_t page) {
    uintptr_t begin = (uintptr_t)c->data / page * page;
    madvise((void *)begin, (uintptr_t)c->data + c->n - begin, MADV_WILLNEED);
    for (size_t i = 0; i < c->n; i += page) (void)*(const volatile char *)(c->data + i);
    (void)*(const volatile char *)(c->data + c->n - 1);
}

static void *work(void *arg) {
    struct prefetch *p = arg;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (struct range c; take(p, &c);) {
        touch(&c, page);
        pthread_mutex_lock(&p->lock);
        p->done += c.n;
        if (p->a->progress) p->a->progress(p->a->arg, p->done, p->all, c.file);
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

size_t weights_prefetch(const struct prefetch_args *a) {
    struct prefetch p = {.a = a, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t helpers[THREADS_MAX];
    int n = 0;
    slots_walk(NULL, a->config, add_range, &p);
    while (n < a->n_threads - 1 && n < THREADS_MAX && !pthread_create(&helpers[n], NULL, work, &p)) n++;
    work(&p);
    while (n) pthread_join(helpers[--n], NULL);
    pthread_mutex_destroy(&p.lock);
    free(p.ranges);
    return p.done;
}
