/* probe.h: a model under test (`minisgl selftest --model`): its weights, split and whole, and an engine of them on the device to be tested or on the
 * CPU, which is the reference: the instruction set with activations in float32. */
#ifndef MINISGL_CLI_PROBE_H
#define MINISGL_CLI_PROBE_H
#include "engine/engine.h"
#include "model/config.h"
#include "model/weights.h"
#include "opt.h"

#include <stdio.h>

enum { PROBE_RANKS = 8 };

struct probe {
    const struct dev_maker *maker; /* the device under test */
    const struct options *options;
    char *dir;
    struct config config;
    struct checkpoint *checkpoint; /* NULL with dummy weights */
    int32_t n_ranks, gpus[PROBE_RANKS];
    struct weights whole, part[PROBE_RANKS]; /* part: with several ranks */
    int32_t n_threads;
    double bound; /* of log-probabilities, at P99.9, by the model's dtype: float32 1e-3, float16 1e-2, bfloat16 5e-2 */
};

int32_t probe_threads(const struct options *o); /* --threads, or the cores this process may use */

/* -1: *e, and nothing is left open. */
int probe_open(struct probe *p, const struct options *o, const struct dev_maker *maker, struct err *e);
void probe_release(struct probe *p);

struct probe_sizes {
    struct batch_limits limits;
    int32_t max_len, page_size, n_pages;
};
/* TESTED: the device under test; EXACT: the CPU, the reference; ROUNDED: the CPU that rounds activations to bf16 before products, which shows how much of
 * a difference is the format's own. */
enum probe_on { PROBE_TESTED, PROBE_EXACT, PROBE_ROUNDED };
/* n_ranks: 1 or p->n_ranks. */
int probe_engine(struct engine **out, const struct probe *p, const struct probe_sizes *s, int32_t n_ranks, enum probe_on on, struct err *e);

/* Differences of log-probabilities: how large they are at a share of all. */
struct spread {
    uint64_t n, not_finite;
    uint64_t count[1 << 15]; /* by the upper bits of the float: within 1 % */
    double max;
};
void spread_add(struct spread *s, double difference);
double spread_at(const struct spread *s, double share);

/* A random number generator of one seed and stream. */
struct dice {
    uint64_t state;
};
struct dice dice_of(uint64_t seed, uint64_t stream);
uint32_t roll(struct dice *d);
int32_t roll_to(struct dice *d, int32_t from, int32_t to); /* both included */

/* The tests. They print to `out`; how many of their checks failed, or -1: *e. */
int selftest_logits(const struct probe *p, FILE *out, struct err *e);
int selftest_steps(const struct probe *p, uint64_t n_steps, FILE *out, struct err *e);

#endif
