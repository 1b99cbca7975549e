/* sampling.c: OP_SAMPLE of a CUDA device: which kernels sample a step's rows, and what ranks exchange between them. Runs on the rank thread; enqueues
 * only. What a row asks for is known by its slot on the host, so that every rank enqueues the same exchanges.
 *
 * Several ranks: rows that are greedy or have a temperature alone, and all log-probabilities, are settled by one exchange of a few numbers a row
 * (sampling_run, part of the captured steps). Steps with top_k or min_p go on with a second one, of each rank's candidates. Where a row has
 * top_p and no top_k, or a larger one than SAMPLE_LIST_MAX, every rank gets all logits in place of it and samples as one rank does: how many tokens
 * top_p keeps is bounded by the vocabulary alone. */
#include "dev/cuda/cuda.h"
#include "dev/sample_rules.h"

enum { ALL_LOGITS = INT32_MAX };

/* Ids in each rank's share; the last may have fewer. */
static int32_t share_of(const struct dev *d) { return (d->shape.vocab_total + 7) / 8 * 8 / d->args.n_ranks; }

/* Candidates that a rank needs to tell of a row: 0, a number, or ALL_LOGITS. Lists lie where all logits would, two words an entry. */
static int32_t candidates_of(const struct dev *d, const struct sampling *s) {
    int32_t share = share_of(d), most = share / 2 < SAMPLE_LIST_MAX ? share / 2 : SAMPLE_LIST_MAX;
    if (s->temperature < SAMPLE_GREEDY || (s->top_k <= 0 && s->top_p >= 1 && s->min_p <= 0)) return 0;
    if (most < 2 || s->top_k > most || (s->top_k <= 0 && s->top_p < 1)) return ALL_LOGITS;
    return s->top_k > 0 ? s->top_k : 1;
}

void sampling_note(struct dev *d, const struct batch *b) {
    for (int32_t i = 0; i < b->n_slots && d->args.n_ranks > 1; i++)
        d->candidates[batch_slots(b)[i].slot] = candidates_of(d, &batch_slots(b)[i].sampling);
}

static struct sample_args split(const struct dev *d, struct sample_args a, int32_t rows) {
    a.splits = 8 * d->n_sms / rows;
    if (a.splits > SAMPLE_SPLITS_MAX) a.splits = SAMPLE_SPLITS_MAX;
    if (a.splits > a.vocab / 2048) a.splits = a.vocab / 2048;
    if (a.splits < 1) a.splits = 1;
    return a;
}

static int gather(struct dev *d, const void *mine, void *all, size_t bytes, struct err *e) {
    return step_exchanges(d) ? d->comm_maker->gather(d->comm, mine, all, bytes, d->stream, e) : 0;
}

int sampling_run(struct dev *d, int32_t rows, struct err *e) {
    struct sample_rank_args a = d->sample_rank;
    if (d->args.n_ranks < 2) {
        k_sample(d->tabs, split(d, d->sample, rows), rows, d->stream);
        return 0;
    }
    a.s = split(d, a.s, rows);
    a.rows = rows;
    k_sample_tell(d->tabs, a, rows, d->stream);
    if (gather(d, a.mine, a.all, (size_t)rows * SAMPLE_FOUND_BYTES, e)) return -1;
    k_sample_merge(d->tabs, a, rows, d->stream);
    return 0;
}

static int by_lists(struct dev *d, int32_t rows, int32_t per, struct err *e) {
    struct sample_rank_args a = d->sample_rank;
    a.rows = rows;
    a.per = (per + 1) / 2 * 2;
    k_sample_list(d->tabs, a, rows, d->stream);
    if (gather(d, a.list, a.all_list, (size_t)rows * (size_t)a.per * SAMPLE_ENTRY_BYTES, e)) return -1;
    k_sample_choose(d->tabs, a, rows, d->stream);
    return 0;
}

static int by_all_logits(struct dev *d, int32_t rows, struct err *e) {
    int64_t ld = d->ld[BUF_LOGITS];
    struct join_args join = {d->shares, d->logits, ld, d->logits_ld, share_of(d), d->shape.vocab_total, rows};
    if (gather(d, d->buf[BUF_LOGITS], d->shares, (size_t)rows * (size_t)ld * 4, e)) return -1;
    k_join(d->tabs, join, rows, d->stream);
    k_sample(d->tabs, split(d, d->sample, rows), rows, d->stream);
    return 0;
}

static bool samples(const struct dev *d) { return d->n_ops > 0 && d->ops[d->n_ops - 1].o->kind == OP_SAMPLE; }

int sampling_finish(struct dev *d, int32_t rows, int32_t candidates, struct err *e) {
    if (d->args.n_ranks < 2 || !samples(d)) return 0;
    if (d->warming) return by_lists(d, rows, 2, e) || by_all_logits(d, rows, e) ? -1 : 0;
    if (!candidates) return 0;
    return candidates == ALL_LOGITS ? by_all_logits(d, rows, e) : by_lists(d, rows, candidates, e);
}
