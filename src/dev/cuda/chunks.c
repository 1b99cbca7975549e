/* chunks.c: prompt chunks by cuDNN, where `--attention-backend cudnn` asks for it: which steps go there, the plans (one a window size),
 * and a run. Everybody else's chunks are `fa`'s. Runs on the rank thread; nothing here waits for the device. It refuses models and
 * caches that cuDNN's kernels here do not take. */
#include "dev/cuda/cuda.h"

#include <stdio.h>
#include <string.h>

int chunks_open(struct dev *d, struct err *e) {
    struct err why;
    if (!d->args.prefill_cudnn || !cudnn_open(&d->cudnn, d->stream, &why)) return 0;
    return err_input(e, "--attention-backend cudnn: %s; put it in the loader's path (LD_LIBRARY_PATH), or use auto or fa", why.text);
}

void chunks_release(struct dev *d) {
    for (int32_t i = 0; i < d->n_plans; i++) cudnn_plan_free(d->plans[i]);
    d->n_plans = 0;
}

/* The plan for an operator's window, made when it is the first with it. */
static int plan_window(struct dev *d, struct dop *o, struct err *e) {
    const struct dev_shape *s = &d->shape;
    int32_t i = 0;
    while (i < d->n_plans && d->plan_window[i] != o->o->window) i++;
    if (i == CUDNN_PLANS_MAX) return err_input(e, "expected up to %d sizes of a sliding window, found more", CUDNN_PLANS_MAX);
    if (i == d->n_plans) {
        struct cudnn_shape c = {.a = d->act, .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim, .page_size = s->page_size,
                                .n_pages = s->n_pages, .table_len = d->tabs.table_len, .max_tokens = s->limits.max_tokens, .window = o->o->window,
                                .scale = o->o->scale, .ldq = d->ld[BUF_QKV], .ldo = d->ld[BUF_ATT]};
        if (cudnn_plan_new(&d->plans[i], d->cudnn, &c, e)) return -1;
        d->plan_window[i] = o->o->window;
        d->n_plans++;
        if (cudnn_plan_workspace(d->plans[i]) > WORKSPACE_BYTES) return err_input(e, "cuDNN wants a workspace of %zu bytes", cudnn_plan_workspace(d->plans[i]));
    }
    o->cudnn = d->plans[i];
    return 0;
}

static int plan_prompts(struct dev *d, struct err *e) {
    struct att_args a = d->att;
    bool takes = att_fast_takes(&a) && a.kv_dtype == a.a; /* no cache in another format */
    for (int32_t i = 0; i < d->n_ops; i++) {
        if (d->ops[i].o->kind != OP_ATTENTION) continue;
        if (!takes) return err_input(e, "cuDNN computes attention here in bfloat16 and float16 only, with a cache of the same");
        if (plan_window(d, &d->ops[i], e)) return -1;
    }
    return 0;
}

int chunks_prepare(struct dev *d, struct err *e) {
    struct err why;
    size_t at = strlen(d->describe);
    if (d->cudnn && plan_prompts(d, &why)) return err_input(e, "--attention-backend cudnn: %s; use auto or fa", why.text);
    snprintf(d->describe + at, sizeof d->describe - at, "; attention %s%s for prompts, %s for decodes", d->n_plans ? "cuDNN " : "fa",
             d->n_plans ? cudnn_version(d->cudnn) : "", d->args.decode_fa ? "fa" : "fi");
    return 0;
}

/* The chunks that cuDNN takes: all of the step, or none when they are more than a plan holds, or the step is short and runs from a graph. */
int32_t chunks_plan(const struct dev *d, const struct step_seq *seqs, int32_t n, int32_t tokens, int32_t *chunks) {
    int32_t count = 0;
    if (!d->n_plans || (!d->warming && graph_find(d, GRAPH_MIXED, tokens))) return 0;
    for (int32_t i = 0; i < n; i++) {
        if (seqs[i].n_tokens < 2) continue;
        if (count == CUDNN_SEQS) return 0;
        chunks[count++] = i;
    }
    return count;
}

int chunks_run(const struct dev *d, const struct dop *o, const struct att_args *a, struct err *e) {
    size_t values = (size_t)a->n_kv_heads * (size_t)a->page_size * (size_t)a->head_dim * dtype_size(a->kv_dtype);
    int rc = cudnn_run(o->cudnn, &(struct cudnn_run){.q = a->q, .k = a->kv, .v = (const char *)a->kv + values, .out = a->out,
                                                     .workspace = d->workspace, .lists = d->chunks});
    if (!rc) return 0;
    return err_machine(e, "rank %d, step %llu, operator %d: cuDNN refused attention: status %d", d->args.rank, (unsigned long long)d->step, d->op_at, rc);
}
