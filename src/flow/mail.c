/* mail.c: see mail.h. The boxes' state is guarded by their locks; both are taken whole. */
#include "flow/mail.h"

#include <errno.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

void inbox_init(struct inbox *in) {
    *in = (struct inbox){0};
    pthread_mutex_init(&in->lock, NULL);
    pthread_cond_init(&in->wake, NULL);
    in->last = &in->first;
}

void inbox_release(struct inbox *in) {
    pthread_cond_destroy(&in->wake);
    pthread_mutex_destroy(&in->lock);
}

static void tell(struct inbox *in) {
    in->news = true;
    pthread_cond_signal(&in->wake);
}

bool inbox_push(struct inbox *in, struct request *r) {
    r->next_in = NULL;
    pthread_mutex_lock(&in->lock);
    bool open = !in->draining;
    if (open) {
        *in->last = r;
        in->last = &r->next_in;
        in->n_waiting++;
        tell(in);
    }
    pthread_mutex_unlock(&in->lock);
    return open;
}

void inbox_cancel(struct inbox *in, struct request *r) {
    atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
    pthread_mutex_lock(&in->lock);
    in->cancelled = true;
    tell(in);
    pthread_mutex_unlock(&in->lock);
}

void inbox_drain_begin(struct inbox *in) {
    pthread_mutex_lock(&in->lock);
    in->draining = true;
    tell(in);
    pthread_mutex_unlock(&in->lock);
}

uint64_t inbox_flush_cache(struct inbox *in, struct outbox *out) {
    pthread_mutex_lock(&in->lock);
    in->flush_for = out;
    uint64_t number = ++in->flushes;
    tell(in);
    pthread_mutex_unlock(&in->lock);
    return number;
}

void inbox_take(struct inbox *in, bool wait, struct inbox_news *news) {
    pthread_mutex_lock(&in->lock);
    while (wait && !in->news && !in->draining) pthread_cond_wait(&in->wake, &in->lock);
    *news = (struct inbox_news){.requests = in->first,
                                .draining = in->draining,
                                .cancelled = in->cancelled,
                                .flush_for = in->flush_for,
                                .flushes = in->flushes};
    in->first = NULL;
    in->last = &in->first;
    in->n_waiting = 0;
    in->news = in->cancelled = false;
    in->flush_for = NULL;
    pthread_mutex_unlock(&in->lock);
}

bool inbox_wait(struct inbox *in, uint64_t ns) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    ns += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&in->lock);
    int rc = 0;
    while (!rc && !in->news && !in->draining) rc = pthread_cond_timedwait(&in->wake, &in->lock, &until);
    bool news = in->news || in->draining;
    pthread_mutex_unlock(&in->lock);
    return news;
}

int outbox_init(struct outbox *out) {
    *out = (struct outbox){.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (out->event_fd < 0) return -1;
    pthread_mutex_init(&out->lock, NULL);
    pthread_cond_init(&out->wake, NULL);
    out->last = &out->first;
    return 0;
}

void outbox_release(struct outbox *out) {
    close(out->event_fd);
    pthread_cond_destroy(&out->wake);
    pthread_mutex_destroy(&out->lock);
}

static void clear_event(int fd) {
    uint64_t n;
    while (read(fd, &n, sizeof n) < 0 && errno == EINTR) {
    }
}

int outbox_take(struct outbox *out, struct news *list, int max, bool wait) {
    int n = 0;
    pthread_mutex_lock(&out->lock);
    while (wait && !out->first) pthread_cond_wait(&out->wake, &out->lock);
    while (n < max && out->first) {
        struct request *r = out->first;
        out->first = r->next_out;
        r->in_outbox = false;
        list[n++] = (struct news){
            .req = r, .n_out = r->n_out, .n_cached = r->n_cached, .admitted = r->admitted, .finish = r->finish};
    }
    if (!out->first) {
        out->last = &out->first;
        clear_event(out->event_fd);
    }
    pthread_mutex_unlock(&out->lock);
    return n;
}

static void wake(struct outbox *out) {
    uint64_t one = 1;
    while (write(out->event_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
    pthread_cond_signal(&out->wake);
}

uint64_t outbox_flushes(struct outbox *out) {
    pthread_mutex_lock(&out->lock);
    uint64_t n = out->flushes;
    pthread_mutex_unlock(&out->lock);
    return n;
}

void outbox_flushed(struct outbox *out, uint64_t flushes) {
    pthread_mutex_lock(&out->lock);
    out->flushes = flushes;
    wake(out);
    pthread_mutex_unlock(&out->lock);
}

void outbox_lock(struct outbox *out) { pthread_mutex_lock(&out->lock); }

void outbox_post(struct outbox *out, struct request *r) {
    if (r->in_outbox) return;
    r->in_outbox = true;
    r->next_out = NULL;
    *out->last = r;
    out->last = &r->next_out;
}

void outbox_unlock(struct outbox *out) {
    if (out->first) wake(out);
    pthread_mutex_unlock(&out->lock);
}
