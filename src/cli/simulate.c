/* simulate.c: `minisgl simulate`: size a machine: the scheduler on a trace, with a cost model where the device would
 * be. The main thread. Refuses a model that does not fit the GPUs. */
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "model_dir.h"
#include "opt.h"
#include "sim/plot.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: minisgl simulate --model DIR|NAME --gpus N [--trace FILE] [--json] [--plot FILE]\n\n"
    "Runs the scheduler on a real trace, or on made-up requests, with a cost model of the GPUs in place of a device, "
    "and tells what\n"
    "clients would see. Figures are the model's, not measurements.";

enum { TRACE_BYTES_MAX = 1 << 30, HOST_NS = 50000 };

static int read_trace(const struct options *o, struct trace *t, struct err *e) {
    int32_t limit = o->sim_requests > 0 ? (int32_t)o->sim_requests : INT32_MAX;
    if (!o->trace) {
        trace_make(t, &(struct trace_synthetic){.n = o->sim_requests > 0 ? limit : 1000,
                                                .rate = o->rate,
                                                .n_prompt = (int32_t)o->input_length,
                                                .n_out = (int32_t)o->output_length,
                                                .shared = o->shared_prefix,
                                                .seed = (uint64_t)o->seed});
    } else {
        char *text;
        size_t n;
        if (file_read(o->trace, TRACE_BYTES_MAX, &text, &n, e)) return -1;
        int rc = trace_parse(t, text, n, limit, e);
        free(text);
        if (rc) return err_prefix(e, "%s: ", o->trace);
    }
    for (int32_t i = 0; i < t->n; i++) t->req[i].at /= o->rate_scale;
    return 0;
}

static int size_pool(const struct options *o, const struct config *c, const struct cost *cost, struct sched_args *a,
                     struct err *e) {
    a->max_len = o->max_seq_len > 0 ? (int32_t)o->max_seq_len : c->max_position;
    a->page_size = (int32_t)o->page_size;
    int64_t pages = o->num_pages > 0 ? o->num_pages : cost_pages(cost, o->memory_ratio, a->page_size) + 1;
    int64_t least = (a->max_len + a->page_size - 1) / a->page_size + 1;
    if (pages < least)
        return err_input(
            e,
            "%s on %d x %s: weights take %.1f of %.1f GB a GPU, which leaves %lld pages of the %lld that one sequence "
            "of %d tokens needs; use more GPUs or --max-seq-len-override",
            o->model, cost->n_gpus, cost->gpu->name, cost->weights / 1e9, cost->gpu->memory / 1e9,
            (long long)(pages > 0 ? pages : 0), (long long)least, a->max_len);
    a->n_pages = pages < INT32_MAX / 2 ? (int32_t)pages : INT32_MAX / 2;
    return 0;
}

/* Options of made-up requests have no meaning for those of a trace. */
static int check_made_up(const struct options *o, struct err *e) {
    static const char *const names[] = {"rate", "input-length", "output-length", "shared-prefix", "seed"};
    for (size_t i = 0; o->trace && i < sizeof names / sizeof *names; i++)
        if (options_given(o, names[i]))
            return err_input(e, "--%s is for made-up requests; leave it out with --trace", names[i]);
    return 0;
}

static int set_up(const struct options *o, struct config *c, struct cost *cost, struct sim_args *a, struct err *e) {
    char *dir = model_dir(o, HUB_CONFIG, e);
    if (!dir) return -1;
    int rc = config_open(c, dir, e);
    free(dir);
    if (rc) return -1;
    a->sched = (struct sched_args){.max_running = (int32_t)o->max_running,
                                   .max_prefill = o->max_prefill > 0 ? (int32_t)o->max_prefill : 8192,
                                   .policy = sched_policy(o->policy),
                                   .margin_percent = SCHED_MARGIN_PERCENT,
                                   .target_itl = (uint64_t)(o->target_itl > 0 ? o->target_itl : 50) * 1000000,
                                   .radix = !strcmp(o->cache_type, "radix")};
    a->cost = cost;
    a->max_tokens = (int32_t)o->max_tokens;
    a->overlap = strcmp(o->overlap, "off") != 0;
    a->host = HOST_NS;
    if (cost_init(cost, c, gpu_find(o->gpu), (int32_t)o->gpus, e) || size_pool(o, c, cost, &a->sched, e)) {
        config_release(c);
        return -1;
    }
    return 0;
}

/* ---- telling ---- */

static double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

static void print_latency(const char *name, const struct percentiles *p) {
    printf("  %-26s %9.1f %9.1f %9.1f %9.1f %9.1f\n", name, p->p50 * 1e3, p->p90 * 1e3, p->p99 * 1e3, p->mean * 1e3,
           p->max * 1e3);
}

static void print_page(const struct options *o, const struct sim_args *a, const struct sim_report *r) {
    const struct cost *c = a->cost;
    printf("%s on %d x %s: %.1f GB of weights and %d pages of %d tokens a GPU, %.1f GB\n", o->model, c->n_gpus,
           c->gpu->name, c->weights / 1e9, a->sched.n_pages - 1, a->sched.page_size,
           (a->sched.n_pages - 1) * c->kv * a->sched.page_size / 1e9);
    printf("%s: %d requests", o->trace ? o->trace : "made-up requests", r->n_requests);
    if (r->n_refused) printf(" (%d more are longer than %d tokens)", r->n_refused, a->sched.max_len);
    printf(", %.1f prompt and %.1f answer tokens each\n", share((double)r->prompt_tokens, r->n_requests),
           share((double)r->output_tokens, r->n_requests));
    printf("policy %s, cache %s, overlap %s, load x%g\n\n", o->policy, o->cache_type, a->overlap ? "on" : "off", o->rate_scale);
    printf("  time                       %9.1f s, device busy %.1f %%, %llu steps\n", r->seconds, 100 * r->busy,
           (unsigned long long)r->steps);
    printf("  throughput                 %9.1f answer tokens/s, %.1f with prompts, %.2f requests/s\n",
           (double)r->output_tokens / r->seconds, (double)(r->output_tokens + r->prompt_tokens) / r->seconds,
           r->n_requests / r->seconds);
    printf("  latency, ms                      P50       P90       P99      mean       max\n");
    print_latency("to the first token", &r->ttft);
    print_latency("between tokens", &r->itl);
    printf("  prompt tokens from cache   %9.2f %%, of an endless one %.2f %%\n",
           100 * share((double)r->cached_tokens, (double)r->prompt_tokens), 100 * r->best_hit);
    printf("  put back (retracted)       %9llu requests, %.3f %% of tokens computed twice\n",
           (unsigned long long)r->retracted, 100 * share((double)r->twice, (double)r->computed));
    printf("  running                    %9.1f requests on average, %d at most; they hold %.1f %% of the pages\n",
           r->running_mean, r->running_max, 100 * r->used_mean);
    printf("  queued                     %9.1f requests on average, %d at most\n", r->queued_mean, r->queued_max);
}

static json_t *latency(const struct percentiles *p) {
    return json_pack("{s:f,s:f,s:f,s:f,s:f}", "p50", p->p50, "p90", p->p90, "p99", p->p99, "mean", p->mean, "max",
                     p->max);
}

static void print_json(const struct options *o, const struct sim_args *a, const struct sim_report *r) {
    const struct cost *c = a->cost;
    json_t *j = json_pack(
        "{s:s,s:s,s:i,s:s,s:s,s:s,s:f, s:i,s:i,s:i,s:i, s:f,s:f,s:I,s:f,s:f,s:f, s:o,s:o, "
        "s:f,s:f,s:I,s:I,s:I,s:I,s:f,s:i,s:f,s:i,s:f}",
        "model", o->model, "gpu", c->gpu->name, "gpus", c->n_gpus, "policy", o->policy, "cache", o->cache_type,
        "overlap", a->overlap ? "on" : "off", "rate_scale", o->rate_scale, "page_size", a->sched.page_size, "pages",
        a->sched.n_pages - 1, "requests", r->n_requests, "refused", r->n_refused, "seconds", r->seconds, "busy",
        r->busy, "steps", (json_int_t)r->steps, "output_tokens_per_second", (double)r->output_tokens / r->seconds,
        "tokens_per_second", (double)(r->output_tokens + r->prompt_tokens) / r->seconds, "requests_per_second",
        r->n_requests / r->seconds, "ttft_seconds", latency(&r->ttft), "itl_seconds", latency(&r->itl), "cache_hit",
        share((double)r->cached_tokens, (double)r->prompt_tokens), "endless_cache_hit", r->best_hit, "computed_tokens",
        (json_int_t)r->computed, "computed_twice", (json_int_t)r->twice, "dropped_samples", (json_int_t)r->dropped,
        "retracted", (json_int_t)r->retracted, "running_mean", r->running_mean, "running_max", r->running_max,
        "queued_mean", r->queued_mean, "queued_max", r->queued_max, "pages_held", r->used_mean);
    json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(j);
}

static int write_plot(const struct options *o, const struct sim_args *a, const struct sim_report *r, struct err *e) {
    FILE *to = fopen(o->plot, "w");
    if (!to) return err_input(e, "--plot: %s: %s", o->plot, strerror(errno));
    char title[300];
    snprintf(title, sizeof title, "%s on %d x %s, %s, policy %s, cache %s, load x%g", o->model, a->cost->n_gpus,
             a->cost->gpu->name, a->trace->format, o->policy, o->cache_type, o->rate_scale);
    plot_svg(to, r, a->sched.n_pages, title);
    bool bad = ferror(to);
    if (fclose(to) || bad) return err_machine(e, "%s could not be written: %s", o->plot, strerror(errno));
    return 0;
}

int cmd_simulate(int argc, char **argv) {
    struct options o;
    struct err e = {0};
    if (options_parse(&o, CMD_SIMULATE, argc, argv, &e)) return cli_fail(&e);
    if (o.help) {
        options_help(stdout, CMD_SIMULATE, usage);
        return 0;
    }
    cli_begin(&o);
    if (check_made_up(&o, &e)) return cli_fail(&e);
    struct config c;
    struct cost cost;
    struct trace trace;
    struct sim_args a = {.trace = &trace};
    if (set_up(&o, &c, &cost, &a, &e)) return cli_fail(&e);
    int rc = read_trace(&o, &trace, &e);
    if (rc) {
        config_release(&c);
        return cli_fail(&e);
    }
    struct sim_report *r = mem_zalloc(1, sizeof *r);
    rc = sim_run(&a, r, &e);
    if (!rc && o.plot) rc = write_plot(&o, &a, r, &e);
    if (!rc && o.json) print_json(&o, &a, r);
    if (!rc && !o.json) print_page(&o, &a, r);
    free(r);
    trace_release(&trace);
    config_release(&c);
    return rc ? cli_fail(&e) : 0;
}
