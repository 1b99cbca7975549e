/* room.c: see room.h. No state. */
#include "engine/room.h"

#include "base/buf.h"

#include <stdlib.h>

size_t room_budget(const struct room_args *a) {
    double all = (double)a->memory / (a->sharers > 1 ? a->sharers : 1);
    return (size_t)(all * a->ratio);
}

/* Bytes of a rank with as many pages as asked for, at least two: the dummy page and one to work with. */
static size_t needed(const struct room_args *a, const struct fit *f) {
    return f->weights + f->buffers + (size_t)(a->num_pages > 2 ? a->num_pages : 2) * f->page;
}

static bool fits(const struct room_args *a) {
    struct fit f;
    struct err e;
    return !fit_count(&f, &a->fit, &e) && needed(a, &f) <= room_budget(a);
}

/* The same with another size of a step. */
static struct room_args with_step(const struct room_args *a, int32_t prefill, int32_t max_running) {
    struct room_args b = *a;
    b.fit.limits.max_tokens = prefill + max_running;
    b.fit.limits.max_seqs = max_running;
    b.prefill = prefill;
    b.max_running = max_running;
    return b;
}

/* Each option alone; the first value of each, going from what was asked for, that makes the model fit. */
static void advise(struct buf *to, const struct room_args *a) {
    size_t before = to->len;
    for (int32_t n = a->fit.n_ranks * 2; n <= 8 && !a->host && a->sharers <= 1; n *= 2) {
        struct room_args b = *a;
        b.fit.n_ranks = n;
        if (!fits(&b)) continue;
        buf_addf(to, ", --tp %d", n);
        break;
    }
    for (int32_t p = a->prefill / 2; p >= 64; p /= 2) {
        struct room_args b = with_step(a, p, a->max_running);
        if (!fits(&b)) continue;
        buf_addf(to, ", --max-prefill-length %d", p);
        break;
    }
    for (int32_t n = a->max_running / 2; n >= 1; n /= 2) {
        struct room_args b = with_step(a, a->prefill, n);
        if (!fits(&b)) continue;
        buf_addf(to, ", --max-running-requests %d", n);
        break;
    }
    struct fit f;
    struct err e;
    if (fit_count(&f, &a->fit, &e)) return;
    size_t taken = f.weights + f.buffers, have = room_budget(a);
    if (a->num_pages > 2 && have > taken + 2 * f.page) buf_addf(to, ", --num-pages %zu", (have - taken) / f.page);
    double ratio = (double)needed(a, &f) / (double)have * a->ratio;
    if (ratio <= 0.98) buf_addf(to, ", --memory-ratio %.2f", ratio + 0.01);
    if (to->len == before) buf_addf(to, ", a smaller model or more memory (no single option is enough)");
}

static int refuse(const struct room_args *a, const struct fit *f, struct err *e) {
    struct buf advice;
    buf_init(&advice, 4096);
    advise(&advice, a);
    err_input(e, "the model does not fit: %s needs %.2f GB (weights %.2f, buffers %.2f, %lld KV pages %.2f) and may take %.2f GB, which is "
                 "--memory-ratio %g of what is free%s. What would make it fit, each alone: %.400s",
              a->fit.n_ranks > 1 ? "each rank" : "it", (double)needed(a, f) / 1e9, (double)f->weights / 1e9, (double)f->buffers / 1e9,
              (long long)(a->num_pages > 2 ? a->num_pages : 2), (double)(needed(a, f) - f->weights - f->buffers) / 1e9, (double)room_budget(a) / 1e9,
              a->ratio, a->sharers > 1 ? ", shared by the ranks" : "", buf_str(&advice) + 2);
    buf_release(&advice);
    return -1;
}

int room_plan(struct room *r, const struct room_args *a, struct err *e) {
    struct fit *f = &r->fit;
    int64_t page = a->fit.page_size, whole = (a->fit.max_len + page - 1) / page, pages = a->num_pages;
    if (fit_count(f, &a->fit, e)) return -1;
    if (needed(a, f) > room_budget(a)) return refuse(a, f, e);
    if (pages < 0) {
        int64_t most = (int64_t)a->max_running * whole + 1, room = (int64_t)((room_budget(a) - f->weights - f->buffers) / f->page);
        pages = room < most ? room : most;
    }
    if (pages > INT32_MAX / page - 1) pages = INT32_MAX / page - 1;
    r->n_pages = (int32_t)pages;
    r->max_len = a->fit.max_len < (pages - 1) * page ? a->fit.max_len : (int32_t)((pages - 1) * page);
    f->kv = (size_t)pages * f->page;
    return 0;
}
