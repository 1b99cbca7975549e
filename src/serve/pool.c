/* pool.c: the text threads. The lists are guarded by the lock; a call in `first` or in a thread's hands belongs to the
 * pool, one in `done` to the I/O thread. */
#include "serve/serve_int.h"

#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct call *next_call(struct pool *p) {
    pthread_mutex_lock(&p->lock);
    while (!p->first && !p->quit) pthread_cond_wait(&p->wake, &p->lock);
    struct call *c = p->quit ? NULL : p->first;
    if (c) {
        p->first = c->next_pool;
        if (!p->first) p->last = &p->first;
    }
    pthread_mutex_unlock(&p->lock);
    return c;
}

static void give_back(struct pool *p, struct call *c) {
    pthread_mutex_lock(&p->lock);
    c->next_pool = p->done;
    p->done = c;
    pthread_mutex_unlock(&p->lock);
    uint64_t one = 1;
    while (write(p->done_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

static void *text_thread(void *arg) {
    struct pool *p = arg;
    struct words_tmp *tmp = NULL;
    for (struct call *c; (c = next_call(p));) {
        if (!tmp) tmp = words_tmp_new(c->job.front->words);
        call_prepare(c, tmp);
        give_back(p, c);
    }
    words_tmp_free(tmp);
    return NULL;
}

int pool_open(struct pool *p, struct serve *s, int n_threads) {
    *p = (struct pool){.serve = s, .done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (p->done_fd < 0) return -1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->last = &p->first;
    p->threads = mem_zalloc((size_t)n_threads, sizeof *p->threads);
    while (p->n_threads < n_threads && !pthread_create(&p->threads[p->n_threads], NULL, text_thread, p)) p->n_threads++;
    return p->n_threads ? 0 : -1;
}

void pool_close(struct pool *p) {
    if (!p->threads) return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    free(p->threads);
    p->threads = NULL;
    close(p->done_fd);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
}

void pool_push(struct pool *p, struct call *c) {
    c->next_pool = NULL;
    pthread_mutex_lock(&p->lock);
    *p->last = c;
    p->last = &c->next_pool;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

struct call *pool_take_done(struct pool *p) {
    uint64_t n;
    while (read(p->done_fd, &n, sizeof n) < 0 && errno == EINTR) {
    }
    pthread_mutex_lock(&p->lock);
    struct call *list = p->done;
    p->done = NULL;
    pthread_mutex_unlock(&p->lock);
    return list;
}
