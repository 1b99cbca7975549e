/* probe.c: see probe.h. Called by the main thread, which becomes rank 0's thread of the engines it opens. It refuses what app.c refuses. */
#include "cli/probe.h"

#include "dev/open.h"

#include "app.h"
#include "base/log.h"
#include "hw/host.h"
#include "model_dir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int load(struct probe *p, struct err *e) {
    const struct options *o = p->options;
    if (!o->dummy_weight && checkpoint_open(&p->checkpoint, p->dir, e)) return -1;
    for (int32_t i = -1; i < (p->n_ranks > 1 ? p->n_ranks : 0); i++) {
        struct weights *w = i < 0 ? &p->whole : &p->part[i];
        struct shard shard = i < 0 ? (struct shard){0, 1} : (struct shard){i, p->n_ranks};
        if (o->dummy_weight ? weights_dummy(w, &p->config, shard, (uint64_t)o->seed, p->n_threads, e) : weights_bind(w, &p->config, p->checkpoint, shard, e))
            return -1;
    }
    return 0;
}

int32_t probe_threads(const struct options *o) {
    struct host host;
    if (o->threads > 0) return (int32_t)o->threads;
    host_read(&host, "");
    return host.cpu.allowed > 0 ? host.cpu.allowed : 1;
}

int probe_open(struct probe *p, const struct options *o, const struct dev_maker *maker, struct err *e) {
    *p = (struct probe){.maker = maker, .options = o, .n_ranks = (int32_t)o->tp, .n_threads = probe_threads(o)};
    for (int32_t i = 0; i < PROBE_RANKS; i++) p->gpus[i] = i;
    int bad = app_check_ranks(o, e) || (o->devices && app_devices(p->gpus, p->n_ranks, o->devices, e));
    if (!bad) bad = !(p->dir = model_dir(o, o->dummy_weight ? HUB_CONFIG : HUB_WEIGHTS, e)) || config_open(&p->config, p->dir, e) || load(p, e);
    if (bad) probe_release(p);
    p->bound = p->config.dtype == DT_F32 ? 1e-3 : p->config.dtype == DT_F16 ? 1e-2 : 5e-2;
    return bad ? -1 : 0;
}

void probe_release(struct probe *p) {
    weights_release(&p->whole);
    for (int32_t i = 0; i < PROBE_RANKS; i++) weights_release(&p->part[i]);
    checkpoint_close(p->checkpoint);
    config_release(&p->config);
    free(p->dir);
}

static void die(void *arg, const struct err *e) {
    (void)arg;
    log_error("%s", e->text);
    _exit(1);
}

int probe_engine(struct engine **out, const struct probe *p, const struct probe_sizes *s, int32_t n_ranks, enum probe_on on, struct err *e) {
    static const char *const exact[] = {"avx512", "avx2", "generic"};
    const struct options *o = p->options;
    struct engine_args a = {.config = &p->config, .weights = n_ranks > 1 ? p->part : &p->whole, .n_ranks = n_ranks, .maker = on == PROBE_TESTED ? p->maker : &dev_cpu,
                            .limits = s->limits, .max_len = s->max_len, .page_size = s->page_size, .n_pages = s->n_pages, .dtype = p->config.dtype, .kv_dtype = p->config.dtype,
                            .comm_timeout_ns = (uint64_t)o->comm_timeout * 1000000000, .broken = die};
    a.dev = (struct dev_args){.n_ranks = n_ranks, .n_threads = p->n_threads / n_ranks > 1 ? p->n_threads / n_ranks : 1, .gpus = p->gpus,
                              .prefill_cudnn = dev_prefill_cudnn(o->attention), .decode_fa = dev_decode_fa(o->attention), .graph_max = (int32_t)o->cuda_graph_max_bs,
                              .gpu_comm = o->gpu_comm, .no_windows = o->disable_pynccl};
    if (on == PROBE_ROUNDED) a.dev.isa = "avx512bf16";
    if (on != PROBE_EXACT) return engine_open(out, &a, e);
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) {
        a.dev.isa = exact[i];
        if (!engine_open(out, &a, e)) return 0;
    }
    return -1;
}

/* ---- differences ---- */

void spread_add(struct spread *s, double difference) {
    float x = (float)fabs(difference);
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    s->n++;
    if (!isfinite(x)) s->not_finite++;
    s->count[bits >> 16]++;
    if (!(x <= s->max)) s->max = x;
}

/* The upper end of the bucket; a value that is no number counts as the largest. */
double spread_at(const struct spread *s, double share) {
    uint64_t below = 0;
    uint32_t i = 0;
    for (; i + 1 < sizeof s->count / sizeof *s->count; i++)
        if ((below += s->count[i]) >= share * (double)s->n) break;
    uint32_t bits = i << 16 | 0xffff;
    float x;
    memcpy(&x, &bits, sizeof x);
    return isfinite(x) && (double)x > s->max ? s->max : (double)x;
}

/* ---- random numbers ---- */

struct dice dice_of(uint64_t seed, uint64_t stream) { return (struct dice){seed * 0x9e3779b97f4a7c15u + stream * 0xd1342543de82ef95u + 1}; }

uint32_t roll(struct dice *d) { /* splitmix64 */
    d->state += 0x9e3779b97f4a7c15u;
    uint64_t x = d->state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(x >> 32);
}

int32_t roll_to(struct dice *d, int32_t from, int32_t to) { return from + (int32_t)(roll(d) % (uint32_t)(to - from + 1)); }
