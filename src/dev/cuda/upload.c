/* upload.c: the program's weights to the device. First the places are laid out (weights that stand side by side become one matrix,
 * views that are used twice one copy), then reader threads copy chunk after chunk: from the mapped file into a pinned buffer, and
 * from there to the GPU, each thread with two buffers and a stream of its own. Nothing else of the weights is kept on the host.
 * Another dtype is converted to on the way; a number that becomes infinite by that ends the upload.
 * The reader threads belong to upload() and are joined before it returns. */
#include "base/mem.h"
#include "dev/cpu/half.h"
#include "dev/cuda/cuda.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { READERS_MAX = 8 };
static const size_t CHUNK = 4 << 20;

/* One view to its place. */
struct copy {
    struct view from;
    enum dtype to;
    int64_t ld;
    size_t at;
    bool vector; /* n * k numbers in one row */
};

struct plan {
    struct dev *d;
    enum dtype act;
    size_t bytes;
    struct copy *copies;
    size_t n, cap;
};

static void add_copy(struct plan *p, struct copy c) {
    if (p->n == p->cap) p->copies = mem_grow(p->copies, p->cap = p->cap ? 2 * p->cap : 256, sizeof *p->copies);
    p->copies[p->n++] = c;
}

static size_t take(struct plan *p, size_t bytes) {
    size_t at = p->bytes;
    p->bytes += up256(bytes);
    return at;
}

static void *place(const struct plan *p, size_t at) { return p->d->weights ? p->d->weights + at : NULL; }

/* The same matrix of the same views was laid out for an earlier operator: use that (a tied lm_head). */
static const struct weight *find_same(const struct plan *p, const struct view *v, int32_t before) {
    for (int32_t i = 0; i < before; i++) {
        const struct dop *o = &p->d->ops[i];
        if ((o->o->kind == OP_EMBED || o->o->kind == OP_LINEAR) && !o->o->w[1].data && o->o->w[0].data == v->data &&
            o->o->w[0].n == v->n && o->o->w[0].k == v->k)
            return &o->w;
    }
    return NULL;
}

static void lay_matrix(struct plan *p, struct weight *w, const struct view *views, int n_views) {
    *w = (struct weight){.dtype = p->act, .k = views[0].k, .ld = up8(views[0].k)};
    for (int i = 0; i < n_views; i++) w->n += views[i].data ? views[i].n : 0;
    size_t row = (size_t)w->ld * dtype_size(p->act), at = take(p, (size_t)w->n * row);
    w->p = place(p, at);
    for (int i = 0; i < n_views; i++) {
        if (!views[i].data) continue;
        add_copy(p, (struct copy){views[i], p->act, w->ld, at, false});
        at += (size_t)views[i].n * row;
    }
}

static void *lay_vector(struct plan *p, const struct view *v, enum dtype to) {
    if (!v->data) return NULL;
    size_t n = (size_t)v->n * (size_t)v->k, at = take(p, (n + 8) * dtype_size(to));
    add_copy(p, (struct copy){*v, to, (int64_t)n, at, true});
    return place(p, at);
}

/* Biases of weights side by side, zeros where one has none. The memory is zero before the copies. */
static void *lay_bias(struct plan *p, const struct op *o, int32_t n, enum dtype to) {
    if (!o->bias[0].data && !o->bias[1].data && !o->bias[2].data) return NULL;
    size_t at = take(p, (size_t)n * dtype_size(to)), first = at;
    for (int i = 0; i < 3; i++) {
        if (!o->w[i].data) continue;
        if (o->bias[i].data) add_copy(p, (struct copy){o->bias[i], to, o->w[i].n, at, true});
        at += (size_t)o->w[i].n * dtype_size(to);
    }
    return place(p, first);
}

static void lay_experts(struct plan *p, struct dop *d) {
    const struct op *o = d->o;
    struct weight one;
    for (int32_t x = 0; x < o->n_experts; x++) { /* the step from one to the next is theirs rounded up, as take() does */
        struct view gu[2] = {o->experts[3 * x], o->experts[3 * x + 1]};
        lay_matrix(p, x ? &one : &d->up, gu, 2);
    }
    for (int32_t x = 0; x < o->n_experts; x++) lay_matrix(p, x ? &one : &d->down, &o->experts[3 * x + 2], 1);
}

static void lay_out(struct plan *p) {
    struct dev *d = p->d;
    for (int32_t i = 0; i < d->n_ops; i++) {
        struct dop *t = &d->ops[i];
        const struct op *o = t->o;
        const struct weight *same = o->kind == OP_LINEAR && !o->w[1].data ? find_same(p, &o->w[0], i) : NULL;
        switch (o->kind) {
        case OP_EMBED: lay_matrix(p, &t->w, o->w, 1); break;
        case OP_LINEAR:
            if (same) t->w = *same;
            else lay_matrix(p, &t->w, o->w, 3);
            t->vector[0] = lay_bias(p, o, t->w.n, DT_F32);
            t->bias = lay_bias(p, o, t->w.n, o->out == BUF_LOGITS || o->out == BUF_H ? DT_F32 : p->act);
            break;
        case OP_REDUCE: t->vector[0] = lay_vector(p, &o->bias[0], DT_F32); break;
        case OP_NORM: t->vector[0] = lay_vector(p, &o->w[0], DT_F32); break;
        case OP_ROPE_KV:
            t->vector[0] = lay_vector(p, &o->w[0], DT_F32);
            t->vector[1] = lay_vector(p, &o->w[1], DT_F32);
            break;
        case OP_MOE:
            lay_matrix(p, &t->w, o->w, 1);
            lay_experts(p, t);
            break;
        default: break;
        }
    }
}

size_t upload_size(struct dev *d, const struct dev_program *prog, enum dtype act) {
    struct plan p = {.d = d, .act = act};
    if (!d->ops) {
        d->ops = mem_zalloc((size_t)prog->n_ops + 1, sizeof *d->ops);
        d->n_ops = prog->n_ops;
        for (int32_t i = 0; i < prog->n_ops; i++) d->ops[i].o = &prog->ops[i];
    }
    lay_out(&p);
    free(p.copies);
    return p.bytes;
}

void upload_forget(struct dev *d) {
    free(d->ops);
    d->ops = NULL;
    d->n_ops = 0;
}

/* ---- the readers ---- */

struct readers {
    struct dev *d;
    const struct plan *p;
    pthread_mutex_t lock; /* over the two that follow */
    size_t copy;
    int64_t row;
    atomic_int failed; /* a cudaError_t */
    _Atomic(const void *) too_large; /* data of a weight that its new dtype cannot hold */
};

struct chunk {
    const struct copy *c;
    int64_t row, rows;
};

static int64_t rows_of(const struct copy *c) { return c->vector ? 1 : c->from.n; }
static int64_t columns_of(const struct copy *c) { return c->vector ? (int64_t)c->from.n * c->from.k : c->from.k; }
static size_t row_bytes(const struct copy *c) { return (size_t)c->ld * dtype_size(c->to); }

static bool next_chunk(struct readers *r, struct chunk *out) {
    pthread_mutex_lock(&r->lock);
    bool any = r->copy < r->p->n && !atomic_load(&r->failed) && !atomic_load(&r->too_large);
    if (any) {
        const struct copy *c = &r->p->copies[r->copy];
        int64_t fit = (int64_t)(CHUNK / row_bytes(c)), left = rows_of(c) - r->row;
        *out = (struct chunk){c, r->row, left < fit || fit < 1 ? (fit < 1 ? 1 : left) : fit};
        r->row += out->rows;
        if (r->row >= rows_of(c)) r->copy++, r->row = 0;
    }
    pthread_mutex_unlock(&r->lock);
    return any;
}

static bool to_f16(uint16_t *to, const char *src, enum dtype from, int64_t n) {
    float most = 0;
    for (int64_t i = 0; i < n; i++) {
        float x = from == DT_BF16 ? bf16_to_f32(((const uint16_t *)(const void *)src)[i]) : ((const float *)(const void *)src)[i];
        float size = f32_of_bits(bits_of_f32(x) & 0x7fffffff);
        if (size > most && size < INFINITY) most = size;
        to[i] = f32_to_f16(x);
    }
    return most < 65520; /* half way from the largest to the next */
}

/* false: a number does not fit. */
static bool convert(char *to, enum dtype t, const char *src, enum dtype from, int64_t n) {
    if (from == t) memcpy(to, src, (size_t)n * dtype_size(t));
    else if (t == DT_F16) return to_f16((uint16_t *)(void *)to, src, from, n);
    else if (t == DT_F32 && from == DT_BF16)
        for (int64_t i = 0; i < n; i++) ((float *)(void *)to)[i] = bf16_to_f32(((const uint16_t *)(const void *)src)[i]);
    else
        for (int64_t i = 0; i < n; i++) store_any(to, t, (size_t)i, load_any(src, from, (size_t)i));
    return true;
}

/* Part of a row into the pinned buffer, in the dtype of the device. */
static void stage(struct readers *r, char *to, const struct copy *c, int64_t row, int64_t from, int64_t n) {
    int64_t k = columns_of(c), real = from + n < k ? n : k > from ? k - from : 0;
    const char *src = (const char *)c->from.data + (size_t)(row * c->from.ld + from) * dtype_size(c->from.dtype);
    if (!convert(to, c->to, src, c->from.dtype, real)) atomic_store(&r->too_large, c->from.data);
    memset(to + (size_t)real * dtype_size(c->to), 0, (size_t)(n - real) * dtype_size(c->to));
}

struct reader {
    cudaStream_t stream;
    char *buffer[2];
    cudaEvent_t free[2];
    int turn;
};

static cudaError_t send(struct reader *w, char *to, size_t bytes) {
    cudaError_t rc = cudaMemcpyAsync(to, w->buffer[w->turn], bytes, cudaMemcpyHostToDevice, w->stream);
    if (!rc) rc = cudaEventRecord(w->free[w->turn], w->stream);
    w->turn ^= 1;
    return rc;
}

static cudaError_t send_chunk(struct readers *r, struct reader *w, const struct chunk *k) {
    const struct copy *c = k->c;
    size_t size = dtype_size(c->to), bytes = row_bytes(c);
    char *to = r->d->weights + c->at + (size_t)k->row * bytes;
    if (bytes <= CHUNK) {
        cudaError_t rc = cudaEventSynchronize(w->free[w->turn]);
        for (int64_t i = 0; i < k->rows; i++) stage(r, w->buffer[w->turn] + (size_t)i * bytes, c, k->row + i, 0, c->ld);
        return rc ? rc : send(w, to, (size_t)k->rows * bytes);
    }
    for (int64_t at = 0, n; at < c->ld; at += n) { /* one row that is longer than a buffer */
        n = c->ld - at < (int64_t)(CHUNK / size) ? c->ld - at : (int64_t)(CHUNK / size);
        cudaError_t rc = cudaEventSynchronize(w->free[w->turn]);
        stage(r, w->buffer[w->turn], c, k->row, at, n);
        if (!rc) rc = send(w, to + (size_t)at * size, (size_t)n * size);
        if (rc) return rc;
    }
    return cudaSuccess;
}

static cudaError_t reader_init(struct reader *w) {
    cudaError_t rc = cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking);
    for (int i = 0; i < 2 && !rc; i++) {
        rc = cudaHostAlloc((void **)&w->buffer[i], CHUNK, cudaHostAllocDefault);
        if (!rc) rc = cudaEventCreateWithFlags(&w->free[i], cudaEventDisableTiming);
    }
    return rc;
}

static void reader_release(struct reader *w) {
    for (int i = 0; i < 2; i++) {
        if (w->free[i]) cudaEventDestroy(w->free[i]);
        if (w->buffer[i]) cudaFreeHost(w->buffer[i]);
    }
    if (w->stream) cudaStreamDestroy(w->stream);
}

static void *read_chunks(void *arg) {
    struct readers *r = arg;
    struct reader w = {0};
    cudaError_t rc = cudaSetDevice(r->d->gpu);
    if (!rc) rc = reader_init(&w);
    for (struct chunk k; !rc && next_chunk(r, &k);) rc = send_chunk(r, &w, &k);
    if (!rc) rc = cudaStreamSynchronize(w.stream);
    reader_release(&w);
    if (rc) atomic_store(&r->failed, (int)rc);
    return NULL;
}

static int refuse_large(const struct dev *d, const void *data, struct err *e) {
    char name[160] = "a weight";
    if (d->shape.weight_name) d->shape.weight_name(d->shape.weight_arg, data, name, sizeof name);
    return err_input(e, "tensor %s has numbers that float16 cannot hold (its largest is 65504): use --dtype bfloat16 or float32", name);
}

int upload(struct dev *d, struct err *e) {
    struct plan p = {.d = d, .act = d->act};
    lay_out(&p);
    struct readers r = {.d = d, .p = &p, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t helpers[READERS_MAX];
    int n = 0, want = d->args.n_threads < READERS_MAX ? d->args.n_threads : READERS_MAX;
    if (p.bytes < 8 * CHUNK) want = 1;
    while (n < want - 1 && !pthread_create(&helpers[n], NULL, read_chunks, &r)) n++;
    read_chunks(&r);
    while (n) pthread_join(helpers[--n], NULL);
    pthread_mutex_destroy(&r.lock);
    free(p.copies);
    if (atomic_load(&r.too_large)) return refuse_large(d, atomic_load(&r.too_large), e);
    return cuda_ok(d, (cudaError_t)atomic_load(&r.failed), "copying the weights", e);
}
