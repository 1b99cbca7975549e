/* prefetch.c: reading a checkpoint's pages before the first request needs them. The calling thread and helpers that it
 * starts and joins; nothing is changed. A file that shrank since it was opened ends in the program's SIGBUS handler. */
#include "model/weights.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS_MAX = 64 };
static const size_t CHUNK = 16 << 20;

struct prefetch {
    const struct checkpoint *from;
    void (*progress)(void *arg, size_t done, size_t all, const char *file);
    void *arg;
    pthread_mutex_t lock; /* over all that follows, and the calls of progress */
    size_t tensor, offset, done;
};

struct chunk {
    const char *data, *file;
    size_t n;
};

/* Tensors are taken in order of name; their chunks stay within one tensor. */
static bool take(struct prefetch *p, struct chunk *c) {
    const struct tensor *t;
    pthread_mutex_lock(&p->lock);
    while ((t = checkpoint_at(p->from, p->tensor)) && p->offset >= t->bytes) {
        p->tensor++;
        p->offset = 0;
    }
    if (t) {
        size_t left = t->bytes - p->offset;
        *c = (struct chunk){
            .data = (const char *)t->data + p->offset, .file = t->file, .n = left < CHUNK ? left : CHUNK};
        p->offset += c->n;
    }
    pthread_mutex_unlock(&p->lock);
    return t != NULL;
}

static void touch(const struct chunk *c, size_t page) {
    uintptr_t begin = (uintptr_t)c->data / page * page;
    madvise((void *)begin, (uintptr_t)c->data + c->n - begin, MADV_WILLNEED);
    for (size_t i = 0; i < c->n; i += page) (void)*(const volatile char *)(c->data + i);
    (void)*(const volatile char *)(c->data + c->n - 1);
}

static void *work(void *arg) {
    struct prefetch *p = arg;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (struct chunk c; take(p, &c);) {
        touch(&c, page);
        pthread_mutex_lock(&p->lock);
        p->done += c.n;
        if (p->progress) p->progress(p->arg, p->done, checkpoint_bytes(p->from), c.file);
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

void weights_prefetch(const struct checkpoint *from, int n_threads,
                      void (*progress)(void *arg, size_t done, size_t all, const char *file), void *arg) {
    struct prefetch p = {.from = from, .progress = progress, .arg = arg, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t helpers[THREADS_MAX];
    int n = 0;
    while (n < n_threads - 1 && n < THREADS_MAX && !pthread_create(&helpers[n], NULL, work, &p)) n++;
    work(&p);
    while (n) pthread_join(helpers[--n], NULL);
    pthread_mutex_destroy(&p.lock);
}
