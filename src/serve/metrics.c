/* metrics.c: see metrics.h. The I/O thread's. It keeps no more for a request than three times in its choice. */
#include "serve/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* ---- scales ---- */

#define MS(x) ((uint64_t)(x)*1000000)
#define S(x) ((uint64_t)(x)*1000000000)

static const struct histo_scale first_token = {
    .n = 22,
    .bound = {MS(1), MS(5),    MS(10), MS(20),   MS(40), MS(60), MS(80), MS(100), MS(250), MS(500), MS(750),
              S(1),  MS(2500), S(5),   MS(7500), S(10),  S(20),  S(40),  S(80),   S(160),  S(640),  S(2560)},
};
/* vLLM's begin at 10 ms, which is more than a token of a small model takes. */
static const struct histo_scale per_token = {
    .n = 22,
    .bound = {MS(1),   2500000, MS(5),   MS(10), MS(25),   MS(50), MS(75),   MS(100), MS(150), MS(200), MS(300),
              MS(400), MS(500), MS(750), S(1),   MS(2500), S(5),   MS(7500), S(10),   S(20),   S(40),   S(80)},
};
static const struct histo_scale whole = {
    .n = 21,
    .bound = {MS(300), MS(500), MS(800), S(1),  MS(1500), S(2),   MS(2500), S(5),   S(10),   S(15),  S(20),
              S(30),   S(40),   S(50),   S(60), S(120),   S(240), S(480),   S(960), S(1920), S(7680)},
};
static const struct histo_scale lengths = {
    .n = 22, .bound = {1,    2,     5,     10,    20,     50,     100,    200,     500,     1000,    2000,
                       5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000, 2000000, 5000000, 10000000}};
static const struct histo_scale few = {.n = 5, .bound = {1, 2, 5, 10, 20}};

static const struct histo_scale *const time_scale[N_TIMES] = {[TIME_FIRST_TOKEN] = &first_token,
                                                              [TIME_INTER_TOKEN] = &per_token,
                                                              [TIME_PER_TOKEN] = &per_token,
                                                              [TIME_WHOLE] = &whole,
                                                              [TIME_QUEUE] = &whole,
                                                              [TIME_INFERENCE] = &whole,
                                                              [TIME_PREFILL] = &whole,
                                                              [TIME_DECODE] = &whole};
static const struct histo_scale *const size_scale[N_SIZES] = {
    [SIZE_PROMPT] = &lengths, [SIZE_GENERATION] = &lengths, [SIZE_MAX_TOKENS] = &lengths, [SIZE_N] = &few};

/* ---- counting ---- */

static void add_time(struct metrics *m, enum metrics_time t, uint64_t from, uint64_t to, uint64_t parts) {
    uint64_t ns = to > from ? to - from : 0;
    if (parts) histo_add(&m->time[t], time_scale[t], ns / parts, parts);
}

static void add_size(struct metrics *m, enum metrics_size s, uint64_t v) {
    histo_add(&m->size[s], size_scale[s], v, 1);
}

void metrics_submitted(struct metrics *m, const struct job *j) {
    add_size(m, SIZE_N, (uint64_t)j->par.n);
    for (int i = 0; i < j->n_choices; i++)
        if (j->choices[i].in_flight) add_size(m, SIZE_MAX_TOKENS, (uint64_t)j->choices[i].req.max_tokens);
}

static void first_news(struct metrics *m, struct choice *c, const struct news *n, uint64_t now) {
    c->first_at = c->last_at = now;
    m->prompt_tokens += (uint64_t)c->req.n_prompt;
    m->cached_tokens += (uint64_t)n->n_cached;
    add_time(m, TIME_FIRST_TOKEN, c->req.arrival, now, 1);
    if (!n->admitted) return;
    c->admitted = n->admitted;
    add_time(m, TIME_QUEUE, c->req.arrival, n->admitted, 1);
    add_time(m, TIME_PREFILL, n->admitted, now, 1);
}

void metrics_news(struct metrics *m, struct choice *c, const struct news *n, int32_t before, uint64_t now) {
    uint64_t made = (uint64_t)(c->n_counted - before);
    m->generation_tokens += made;
    if (made && !c->first_at) {
        first_news(m, c, n, now);
        made--;
    }
    add_time(m, TIME_INTER_TOKEN, c->last_at, now, made);
    if (made) c->last_at = now;
}

static void count_end(struct metrics *m, const struct choice *c, uint64_t now) {
    m->ended[c->finish]++;
    if ((c->finish != FINISH_STOP && c->finish != FINISH_LENGTH) || !c->first_at) return;
    add_time(m, TIME_WHOLE, c->req.arrival, now, 1);
    if (c->admitted) add_time(m, TIME_INFERENCE, c->admitted, c->last_at, 1);
    add_time(m, TIME_DECODE, c->first_at, c->last_at, 1);
    if (c->n_counted > 1) add_time(m, TIME_PER_TOKEN, 0, (c->last_at - c->first_at) / (uint64_t)(c->n_counted - 1), 1);
    add_size(m, SIZE_PROMPT, (uint64_t)c->req.n_prompt);
    add_size(m, SIZE_GENERATION, (uint64_t)c->n_counted);
}

void metrics_ends(struct metrics *m, struct job *j, uint64_t now) {
    for (int i = 0; i < j->n_choices; i++) {
        struct choice *c = &j->choices[i];
        if (!c->done || c->end_counted || !c->req.arrival) continue;
        c->end_counted = true;
        count_end(m, c, now);
    }
}

/* ---- text ---- */

struct out {
    struct buf *b;
    const struct metrics_args *a;
    const char *name;
};

void metrics_label(struct buf *b, const char *s) {
    buf_addc(b, '"');
    for (; *s; s++) {
        if (*s == '\n')
            buf_adds(b, "\\n");
        else if (*s == '"' || *s == '\\')
            buf_addf(b, "\\%c", *s);
        else
            buf_addc(b, *s);
    }
    buf_addc(b, '"');
}

static void head(struct out *o, const char *type, const char *name, const char *help) {
    o->name = name;
    buf_addf(o->b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* `suffix` of the name and `more` labels, both maybe "". */
static void series(struct out *o, const char *suffix, const char *more) {
    buf_addf(o->b, "%s%s{engine=\"0\",model_name=", o->name, suffix);
    metrics_label(o->b, o->a->model);
    buf_addf(o->b, "%s%s} ", *more ? "," : "", more);
}

static void whole_number(struct out *o, const char *suffix, const char *more, uint64_t v) {
    series(o, suffix, more);
    buf_addf(o->b, "%" PRIu64 "\n", v);
}

static void one(struct out *o, const char *type, const char *name, const char *help, uint64_t v) {
    head(o, type, name, help);
    whole_number(o, "", "", v);
}

/* ns: the values are nanoseconds, told in seconds. */
static void histogram(struct out *o, const struct histo *h, const struct histo_scale *s, bool ns) {
    uint64_t n = 0;
    char le[48];
    for (int i = 0; i < s->n; i++) {
        n += atomic_load_explicit(&h->count[i], memory_order_relaxed);
        if (s == &lengths && s->bound[i] > (uint64_t)o->a->max_len) continue;
        int k = snprintf(le, sizeof le, "le=\"%g", ns ? (double)s->bound[i] * 1e-9 : (double)s->bound[i]);
        bool plain = true;
        for (int c = 0; c < k; c++) plain &= le[c] != '.' && (c < 4 || le[c] != 'e');
        snprintf(le + k, sizeof le - (size_t)k, "%s\"", plain ? ".0" : "");
        whole_number(o, "_bucket", le, n);
    }
    n += atomic_load_explicit(&h->count[s->n], memory_order_relaxed);
    whole_number(o, "_bucket", "le=\"+Inf\"", n);
    uint64_t sum = atomic_load_explicit(&h->sum, memory_order_relaxed);
    series(o, "_sum", "");
    if (ns)
        buf_addf(o->b, "%" PRIu64 ".%09" PRIu64 "\n", sum / 1000000000, sum % 1000000000);
    else
        buf_addf(o->b, "%" PRIu64 "\n", sum);
    whole_number(o, "_count", "", n);
}

static void write_times(struct out *o, const struct metrics *m) {
    static const struct {
        const char *name, *help;
        enum metrics_time time;
    } rows[] = {
        {"vllm:time_to_first_token_seconds", "From a request's arrival to its first token.", TIME_FIRST_TOKEN},
        {"vllm:inter_token_latency_seconds", "From one token of an answer to its next.", TIME_INTER_TOKEN},
        {"vllm:time_per_output_token_seconds", "The same under the name of older dashboards.", TIME_INTER_TOKEN},
        {"vllm:request_time_per_output_token_seconds", "Mean time between tokens of a finished request.",
         TIME_PER_TOKEN},
        {"vllm:e2e_request_latency_seconds", "From a request's arrival to its end (stop or length).", TIME_WHOLE},
        {"vllm:request_queue_time_seconds", "From a request's arrival to its admission.", TIME_QUEUE},
        {"vllm:request_inference_time_seconds", "From a request's admission to its last token.", TIME_INFERENCE},
        {"vllm:request_prefill_time_seconds", "From a request's admission to its first token.", TIME_PREFILL},
        {"vllm:request_decode_time_seconds", "From a request's first token to its last.", TIME_DECODE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        head(o, "histogram", rows[i].name, rows[i].help);
        histogram(o, &m->time[rows[i].time], time_scale[rows[i].time], true);
    }
}

static void write_sizes(struct out *o, const struct metrics *m) {
    static const struct {
        const char *name, *help;
        enum metrics_size size;
    } rows[] = {
        {"vllm:request_prompt_tokens", "Prompt tokens of finished requests.", SIZE_PROMPT},
        {"vllm:request_generation_tokens", "Generated tokens of finished requests.", SIZE_GENERATION},
        {"vllm:request_max_num_generation_tokens", "Tokens that requests may generate at most.", SIZE_MAX_TOKENS},
        {"vllm:request_params_max_tokens", "The same: max_tokens, or what stands for it.", SIZE_MAX_TOKENS},
        {"vllm:request_params_n", "The field n of requests.", SIZE_N},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        head(o, "histogram", rows[i].name, rows[i].help);
        histogram(o, &m->size[rows[i].size], size_scale[rows[i].size], false);
    }
}

static void write_counts(struct out *o, const struct metrics *m) {
    static const char *const reasons[] = {[FINISH_STOP] = "stop",
                                          [FINISH_LENGTH] = "length",
                                          [FINISH_ABORT] = "abort",
                                          [FINISH_TIMEOUT] = "timeout",
                                          [FINISH_ERROR] = "error"};
    one(o, "counter", "vllm:prompt_tokens_total", "Prompt tokens of requests that got a first token.",
        m->prompt_tokens);
    one(o, "counter", "vllm:prompt_tokens_cached_total", "Of these, tokens found in the prefix cache.",
        m->cached_tokens);
    one(o, "counter", "vllm:generation_tokens_total", "Tokens of answers.", m->generation_tokens);
    head(o, "counter", "vllm:request_success_total", "Requests that ended, by how.");
    for (int i = FINISH_STOP; i <= FINISH_ERROR; i++) {
        char more[40];
        snprintf(more, sizeof more, "finished_reason=\"%s\"", reasons[i]);
        whole_number(o, "", more, m->ended[i]);
    }
}

static void usage(struct out *o, const char *name, const char *help, int used, int total) {
    head(o, "gauge", name, help);
    series(o, "", "");
    buf_addf(o->b, "%.6g\n", total > 0 ? (double)used / total : 0.0);
}

static void write_pages(struct out *o, const struct stats *st) {
    int used = st->pages_used, total = st->pages_total;
    char more[80];
    usage(o, "vllm:kv_cache_usage_perc", "Share of the KV cache that requests hold; 1 is all of it.", used, total);
    usage(o, "vllm:gpu_cache_usage_perc", "The same under the name of older dashboards.", used, total);
    head(o, "gauge", "minisgl:kv_cache_pages",
         "Pages of the KV cache: all, held by requests, in the prefix cache (held or not).");
    whole_number(o, "", "kind=\"all\"", (uint64_t)total);
    whole_number(o, "", "kind=\"held\"", (uint64_t)used);
    whole_number(o, "", "kind=\"cached\"", (uint64_t)(int)st->pages_cached);
    head(o, "gauge", "vllm:cache_config_info", "Always 1; the labels tell the KV cache's shape.");
    snprintf(more, sizeof more, "block_size=\"%d\",num_gpu_blocks=\"%d\"", (int)st->page_size, total);
    whole_number(o, "", more, 1);
}

static void write_stats(struct out *o, const struct stats *st) {
    one(o, "gauge", "vllm:num_requests_running", "Requests that are being computed.", (uint64_t)(int)st->running);
    one(o, "gauge", "vllm:num_requests_waiting", "Requests that wait to be admitted.", (uint64_t)(int)st->waiting);
    write_pages(o, st);
    one(o, "counter", "vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
        st->cache_queries);
    one(o, "counter", "vllm:prefix_cache_hits_total", "Prompt tokens found there.", st->cached_tokens);
    one(o, "counter", "vllm:num_preemptions_total",
        "Times that a request was put back to the queue because pages ran out.", st->retracted);
    one(o, "counter", "minisgl:computed_prompt_tokens_total",
        "Prompt tokens computed, and tokens computed again after a request was put back.", st->prompt_tokens);
    head(o, "histogram", "vllm:iteration_tokens_total", "New tokens in a step, of prompts and of answers.");
    histogram(o, &st->step_tokens, &stats_tokens, false);
    head(o, "histogram", "minisgl:step_duration_seconds", "What a step took on the device.");
    histogram(o, &st->step_time, &stats_times, true);
}

/* What Prometheus's own client libraries tell of a process; no labels. */
static void write_process(struct buf *b) {
    struct rusage u;
    size_t all, resident;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%zu %zu", &all, &resident) == 2)
        buf_addf(b,
                 "# HELP process_resident_memory_bytes Resident memory size in bytes.\n"
                 "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %zu\n",
                 resident * (size_t)sysconf(_SC_PAGESIZE));
    if (f) fclose(f);
    getrusage(RUSAGE_SELF, &u);
    buf_addf(b,
             "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n"
             "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.3f\n",
             (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                 (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6);
}

void metrics_write(struct buf *b, const struct metrics *m, const struct metrics_args *a) {
    struct out o = {.b = b, .a = a};
    if (a->stats) write_stats(&o, a->stats);
    write_counts(&o, m);
    write_times(&o, m);
    write_sizes(&o, m);
    write_process(b);
}
