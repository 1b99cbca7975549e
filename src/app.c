/* app.c: see app.h. The opening thread owns everything until the scheduler thread starts; then sched, loop and
 * engine are the scheduler thread's. */
#include "app.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "dev/open.h"
#include "hw/gpu.h"
#include "hw/host.h"
#include "model_dir.h"
#include "products.h"
#include "text/template.h"
#include "text/tokenizer.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the text side, loaded beside the weights ---- */

struct text_load {
    const struct app *app;
    const struct options *o;
    struct tokenizer *tokenizer;
    struct chat_template *chat_template;
    int failed;
    struct err err;
};

static void *load_text(void *arg) {
    struct text_load *t = arg;
    char *file = path_join(t->app->dir, "tokenizer.json");
    if (file_given(file) || !t->o->dummy_weight) t->tokenizer = tokenizer_open(t->app->dir, &t->err);
    else t->tokenizer = tokenizer_bytes(t->app->config.vocab);
    free(file);
    if (t->tokenizer) t->chat_template = chat_template_open(t->app->dir, t->o->chat_template, &t->err);
    t->failed = !t->chat_template;
    return NULL;
}

enum { COMM_SPIN_NS = 40000 };

/* ---- weights ---- */

static int cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static int threads_of(const struct options *o) { return o->threads > 0 ? (int)o->threads : cores(); }

static int threads_of_rank(const struct app *a, const struct options *o) {
    int n = threads_of(o) / a->n_local;
    return n > 1 ? n : 1;
}

/* ---- progress of loading: a line that is rewritten on a terminal, a log line a file elsewhere ---- */

struct progress {
    uint64_t start, shown;
    bool terminal;
    const char *file; /* the last one told of */
};

static void show_progress(void *arg, size_t done, size_t all, const char *file) {
    struct progress *p = arg;
    uint64_t now = clock_ns();
    double gb = (double)done / 1e9, rate = gb / ((double)(now - p->start + 1) / 1e9);
    if (p->terminal && (done == all || now - p->shown > 100000000)) {
        fprintf(stderr, "\rloading %s: %.2f of %.2f GB, %.1f GB/s  ", file, gb, (double)all / 1e9, rate);
        if (done == all) fprintf(stderr, "\r\033[K");
        p->shown = now;
    } else if (!p->terminal && p->file != file) {
        log_info("loading %s: %.2f of %.2f GB so far, %.1f GB/s", file, gb, (double)all / 1e9, rate);
        p->file = file;
    }
}

static void prefetch(const struct app *a, int n_threads) {
    struct progress p = {.start = clock_ns(), .terminal = log_on_terminal()};
    size_t bytes = weights_prefetch(&(struct prefetch_args){
        .from = a->checkpoint, .config = &a->config, .first = {join_first(&a->join), a->n_ranks}, .n_local = a->n_local,
        .n_threads = n_threads, .progress = show_progress, .arg = &p});
    double s = (double)(clock_ns() - p.start) / 1e9, gb = (double)bytes / 1e9;
    log_info("read %zu tensors, %.2f GB in %.2f s, %.1f GB/s", checkpoint_count(a->checkpoint), gb, s, gb / (s + 1e-9));
}

static struct shard shard_of(const struct app *a, int32_t i) {
    return (struct shard){.rank = join_first(&a->join) + i, .n_ranks = a->n_ranks};
}

/* Every tensor found, and of the right shape and dtype; what lies in the files is not touched yet. */
static int bind_weights(struct app *a, struct err *e) {
    if (checkpoint_open(&a->checkpoint, a->dir, e)) return -1;
    for (int32_t i = 0; i < a->n_local; i++)
        if (weights_bind(&a->weights[i], &a->config, a->checkpoint, shard_of(a, i), e)) return -1;
    return 0;
}

static int load_weights(struct app *a, const struct options *o, struct err *e) {
    for (int32_t i = 0; i < a->n_local && o->dummy_weight; i++)
        if (weights_dummy(&a->weights[i], &a->config, shard_of(a, i), (uint64_t)o->seed, threads_of(o), e)) return -1;
    if (a->checkpoint && !a->maker->memory) prefetch(a, threads_of(o)); /* a GPU reads the files itself, once */
    return 0;
}

static size_t weight_bytes(const struct app *a) {
    size_t n = 0;
    for (int32_t i = 0; i < a->n_local; i++) n += a->weights[i].bytes;
    return n;
}

/* Everything that takes time: weights in this thread, tokenizer and template in another. */
static int load_model(struct app *a, const struct options *o, struct err *e) {
    if (app_follows(a)) return load_weights(a, o, e);
    struct text_load text = {.app = a, .o = o};
    pthread_t thread;
    if (pthread_create(&thread, NULL, load_text, &text)) return err_machine(e, "no thread can be started");
    int failed = load_weights(a, o, e);
    pthread_join(thread, NULL);
    a->tokenizer = text.tokenizer;
    a->chat_template = text.chat_template;
    if (failed) return -1;
    if (text.failed) *e = text.err;
    if (!text.failed && tokenizer_n_vocab(a->tokenizer) > (size_t)a->config.vocab)
        return err_input(e, "%s: the tokenizer has ids up to %zu, the model's vocabulary ends at %d", a->dir,
                         tokenizer_n_vocab(a->tokenizer) - 1, a->config.vocab - 1);
    return text.failed ? -1 : 0;
}

/* ---- memory ---- */

static bool on_gpu(const struct app *a) { return a->maker->memory != NULL; }

static struct dev_args device_args(const struct app *a, const struct options *o) {
    return (struct dev_args){.n_ranks = a->n_ranks, .n_threads = threads_of_rank(a, o), .isa = o->cpu_isa,
                             .prefill_cudnn = dev_prefill_cudnn(o->attention), .decode_fa = dev_decode_fa(o->attention),
                             .graph_max = (int32_t)o->cuda_graph_max_bs, .gpus = a->gpus, .products = &a->products,
                             .gpu_comm = o->gpu_comm, .no_windows = o->disable_pynccl};
}

static struct sched_args sched_settings(struct app *a, const struct options *o, const struct room *room) {
    struct sched_args sa = {.max_running = (int32_t)o->max_running, .page_size = (int32_t)o->page_size,
                            .max_prefill = o->max_prefill > 0 ? (int32_t)o->max_prefill : on_gpu(a) ? 8192 : 512,
                            .max_len = room->max_len, .n_pages = room->n_pages,
                            .radix = !strcmp(o->cache_type, "radix"), .stats = &a->stats,
                            .policy = sched_policy(o->policy), .margin_percent = SCHED_MARGIN_PERCENT,
                            .prompt_weight = on_gpu(a) ? SCHED_PROMPT_WEIGHT : SCHED_PROMPT_WEIGHT_CPU,
                            .target_itl = (uint64_t)(o->target_itl > 0 ? o->target_itl : on_gpu(a) ? 50 : 500) * 1000000};
    if (sa.max_running > room->n_pages - 1) sa.max_running = room->n_pages - 1;
    return sa;
}

/* What is free on the GPU that has least. */
static int gpu_memory(const struct app *a, const struct dev_args *dev, size_t *memory, struct err *e) {
    struct dev_args one = *dev;
    size_t total, n;
    *memory = SIZE_MAX;
    for (one.local = 0; one.local < a->n_local; one.local++) {
        if (a->maker->memory(&one, &n, &total, e)) return -1;
        if (n < *memory) *memory = n;
    }
    return 0;
}

static double mb(size_t n) { return (double)n / 1e6; }

/* The one plan of a GPU's memory, a line a row. */
static void print_plan(const struct room *r, const struct room_args *a) {
    const struct dev_bytes *p = &r->fit.parts;
    const struct row {
        const char *name, *what;
        size_t bytes;
    } rows[] = {{"weights", "", r->fit.weights},
                {"KV pages", "", r->fit.kv},
                {"activations", "the buffers of one step", p->activations},
                {"tables", "by slot, and the step's block", p->tables},
                {"experts", "scratch of their products", p->experts},
                {"workspaces", "of attention, sampling and cuBLASLt", p->workspace},
                {"communication", "between ranks", p->comm},
                {"graphs", "at most", p->graphs},
                {"kernels", "at most", p->code}};
    log_info("memory of each GPU, MB, of %.0f that --memory-ratio %g of what is free allows:", mb(room_budget(a)), a->ratio);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].bytes) log_info("  %-13s %12.1f  %s", rows[i].name, mb(rows[i].bytes), rows[i].what);
    log_info("  %-13s %12.1f", "together", mb(r->fit.weights + r->fit.kv + r->fit.buffers));
}

/* How many pages of KV cache there are, and how long a sequence may be; before anything is loaded. */
static int plan_memory(struct app *a, const struct options *o, struct err *e) {
    struct room *room = &a->room;
    int64_t len = o->max_seq_len > 0 ? o->max_seq_len : a->config.max_position;
    if (len > a->config.max_position)
        return err_input(e, "--max-seq-len-override %lld: the model was made for %d positions", (long long)len,
                         a->config.max_position);
    *room = (struct room){.n_pages = o->num_pages > 0 ? (int32_t)o->num_pages : INT32_MAX, .max_len = (int32_t)len};
    struct sched_args sa = sched_settings(a, o, room);
    struct dev_args dev = device_args(a, o);
    size_t memory = host_memory_left();
    if (on_gpu(a) && gpu_memory(a, &dev, &memory, e)) return -1;
    struct room_args ra = {.fit = {.config = &a->config, .n_ranks = a->n_ranks, .maker = a->maker, .dev = dev,
                                   .limits = sched_limits(&sa), .max_len = (int32_t)len, .page_size = sa.page_size,
                                   .dtype = a->formats.dtype, .kv_dtype = a->formats.kv_dtype},
                           .prefill = sa.max_prefill, .max_running = sa.max_running, .num_pages = o->num_pages,
                           .memory = memory, .ratio = o->memory_ratio, .sharers = on_gpu(a) ? a->sharers : a->n_local, .host = !on_gpu(a)};
    if (room_plan(room, &ra, e) || join_agree(&a->join, &a->config, o, room, e)) return -1;
    if (room->max_len < len)
        log_warning("the KV cache holds %d tokens: sequences are limited to that, although the model was made for %d", room->max_len,
                    a->config.max_position);
    if (on_gpu(a)) print_plan(room, &ra);
    log_info("KV cache: %d pages of %d tokens, %.2f GB at most; sequences up to %d tokens", room->n_pages, sa.page_size,
             (double)room->fit.kv * a->n_local / 1e9, room->max_len);
    return 0;
}

/* ---- the machinery ---- */

/* Where a launch does all the work before it returns, results of a step would only wait for the next one. */
static int decide_overlap(const struct app *a, const struct options *o, bool *on, struct err *e) {
    bool asked = !strcmp(o->overlap, "on");
    if (asked && o->disable_overlap)
        return err_input(e, "--overlap on contradicts --disable-overlap-schedule (or MINISGL_DISABLE_OVERLAP_SCHEDULING): leave one out");
    *on = asked || (!o->disable_overlap && !strcmp(o->overlap, "auto") && engine_async(a->engine));
    return 0;
}

/* A broken machine ends the process at once; the first to notice says why, in the log and to who waits for an answer. */
static void die(void *app, const struct err *e) {
    static atomic_flag told = ATOMIC_FLAG_INIT;
    struct app *a = app;
    if (!atomic_flag_test_and_set(&told)) {
        log_error("%s", e->text);
        if (a->broken) a->broken(a->broken_arg, e);
        _exit(1);
    }
    for (;;) pause();
}

/* RANK:STEP:hang|exit|differ|stall; only builds for tests have the option. */
static int parse_fault(const char *text, struct fault *f, struct err *e) {
    static const char *const kinds[] = {[FAULT_HANG] = "hang", [FAULT_EXIT] = "exit", [FAULT_DIFFER] = "differ", [FAULT_STALL] = "stall"};
    char kind[16];
    int rank;
    unsigned long long step;
    *f = (struct fault){0};
    if (!text) return 0;
    if (sscanf(text, "%d:%llu:%15s", &rank, &step, kind) == 3)
        for (int i = FAULT_HANG; i <= FAULT_STALL; i++)
            if (!strcmp(kind, kinds[i])) *f = (struct fault){.kind = (enum fault_kind)i, .rank = rank, .step = step};
    return f->kind ? 0 : err_input(e, "--fault %s: expected RANK:STEP:hang, exit, differ or stall", text);
}

static void tell_ranks(const struct app *a, bool overlap) {
    for (int32_t i = 0; a->n_ranks > 1 && i < a->n_ranks; i++) {
        log_info("Rank %d/%d ready", i, a->n_ranks);
        if (i >= a->n_local) continue; /* another process's */
        struct dev_loaded l = engine_loaded(a->engine, i);
        log_debug("rank %d holds %zu bytes of weights, up to %zu of KV cache, %zu of buffers", i, a->weights[i].bytes, l.bytes.kv, dev_bytes_beside(&l.bytes));
    }
    struct dev_loaded l = engine_loaded(a->engine, 0);
    log_info("computing on %s%s%s; each holds %.3f GB of weights, up to %.3f GB of KV cache and %.3f GB of buffers", engine_describe(a->engine),
             a->n_ranks > 1 ? " a rank" : "",
             overlap ? ", overlap scheduling" : "", (double)a->weights[0].bytes / 1e9, (double)l.bytes.kv / 1e9, (double)dev_bytes_beside(&l.bytes) / 1e9);
    if (*engine_chosen(a->engine)) log_info("%s", engine_chosen(a->engine));
}

/* Was the plan kept? What other programs took meanwhile is in the figure too. */
static void tell_taken(const struct app *a) {
    for (int32_t i = 0; i < a->n_local; i++) {
        struct dev_loaded l = engine_loaded(a->engine, i);
        size_t planned = l.bytes.weights + l.bytes.kv + dev_bytes_beside(&l.bytes);
        if (i == 0 && l.n_graphs)
            log_info("graphs: %d captured in %.2f s, %.1f MB; decodes of up to %d requests, mixed steps of up to %d tokens", l.n_graphs, l.graphs_s,
                     mb(l.graphs_taken), l.decodes, l.tokens);
        if (l.bytes.libraries) log_info("memory of GPU rank %d: NCCL and cuDNN took %.1f MB for themselves", i, mb(l.bytes.libraries));
        if (!l.taken) continue;
        if (l.taken <= planned) log_info("memory of GPU rank %d: %.1f MB taken, of %.1f planned", i, mb(l.taken), mb(planned));
        else log_warning("memory of GPU rank %d: %.1f MB were taken, %.1f more than planned: by another program, or the plan is wrong", i, mb(l.taken),
                         mb(l.taken - planned));
    }
}

static int open_machinery(struct app *a, const struct options *o, struct err *e) {
    const struct room *room = &a->room;
    struct sched_args sa = sched_settings(a, o, room);
    struct engine_args ea = {.config = &a->config, .weights = a->weights, .n_ranks = a->n_ranks, .hosts = a->join.hosts, .maker = a->maker,
                             .dev = device_args(a, o), .limits = sched_limits(&sa),
                             .max_len = room->max_len, .page_size = sa.page_size, .n_pages = room->n_pages,
                             .dtype = a->formats.dtype, .kv_dtype = a->formats.kv_dtype, .convert = a->formats.convert, .comm_timeout_ns = (uint64_t)o->comm_timeout * 1000000000,
                             .comm_spin_ns = threads_of_rank(a, o) * a->n_local <= cores() ? COMM_SPIN_NS : 0, .broken = die, .broken_arg = a};
    if (parse_fault(o->fault, &ea.fault, e)) return -1;
    bool overlap = false;
    if (engine_open(&a->engine, &ea, e) || decide_overlap(a, o, &overlap, e) || join_ready(&a->join, o, e)) return -1;
    if (app_follows(a)) return 0;
    a->sched = sched_new(&sa);
    loop_init(&a->loop, &a->inbox, a->sched, a->engine, &ea.limits, overlap);
    tell_ranks(a, overlap);
    tell_taken(a);
    return 0;
}

static void *scheduler_thread(void *arg) {
    struct app *a = arg;
    struct err e;
    if (loop_run(&a->loop, &e)) die(a, &e);
    return NULL;
}

static void release(struct app *a) {
    if (a->sched) loop_release(&a->loop);
    sched_free(a->sched);
    engine_close(a->engine);
    chat_template_free(a->chat_template);
    tokenizer_close(a->tokenizer);
    for (int32_t i = 0; i < a->n_local; i++) weights_release(&a->weights[i]);
    checkpoint_close(a->checkpoint);
    config_release(&a->config);
    lintab_release(&a->products);
    inbox_release(&a->inbox);
    free(a->dir);
    join_close(&a->join);
}

int app_check_ranks(const struct options *o, struct err *e) {
    if (o->tp <= APP_MAX_RANKS && (o->tp & (o->tp - 1)) == 0) return 0;
    return err_input(e, "--tp %lld: the model can be split over 1, 2, 4 or 8 ranks", (long long)o->tp);
}

/* --devices: as many ordinals as ranks. */
int app_devices(int32_t *gpus, int32_t n, const char *text, struct err *e) {
    int32_t found = 0;
    if (!gpus_named(text, gpus, n, &found) && found == n) return 0;
    return err_input(e, "--devices %s: expected the CUDA ordinals of %d GPUs, one a rank, parted by commas", text, n);
}

static void count_sharers(struct app *a) {
    a->sharers = 1;
    for (int32_t i = 0; i < a->n_local; i++) {
        int32_t same = 0;
        for (int32_t k = 0; k < a->n_local; k++) same += a->gpus[k] == a->gpus[i];
        if (same > a->sharers) a->sharers = same;
    }
    if (a->sharers > 1) log_warning("--devices: %d ranks compute on one GPU: a test mode, slower than one rank", a->sharers);
}

/* The GPUs of all ranks on this host, of which this process has its part. */
static int choose_gpus(struct app *a, const struct options *o, struct err *e) {
    int32_t here[APP_MAX_RANKS], n = join_here(&a->join, a->n_ranks), rc = 0;
    struct gpus gpus;
    for (int32_t i = 0; i < APP_MAX_RANKS; i++) here[i] = i;
    if (o->devices && app_devices(here, n, o->devices, e)) return -1;
    memcpy(a->gpus, here + join_before(&a->join, a->n_ranks), (size_t)a->n_local * sizeof *here);
    count_sharers(a);
    if (n == 1 && !o->devices) return 0;
    gpus_read(&gpus);
    if (!o->devices) rc = gpus_enough(&gpus, n, e);
    for (int32_t i = 0; o->devices && i < n && !rc; i++)
        if (here[i] >= gpus.n)
            rc = err_input(e, "--devices %s: there is no GPU %d here: this machine has %d, counted from 0 (`nvidia-smi --list-gpus` lists them)",
                           o->devices, here[i], gpus.n);
    gpus_release(&gpus);
    return rc;
}

/* The table of products that was named, or the one that is where tables are looked for. */
static int read_products(struct app *a, const struct options *o, struct err *e) {
    char *path = o->products ? mem_strdup(o->products) : products_path(o);
    int rc = path ? products_read(&a->products, path, o->products != NULL, e) : 0;
    free(path);
    return rc;
}

static int choose_device(struct app *a, const struct options *o, struct err *e) {
    char why[600];
    if (dev_choose(&a->maker, o->device, why, sizeof why, e)) return -1;
    if (*why) log_info("computing on the CPU: %s", why);
    if (on_gpu(a) && (choose_gpus(a, o, e) || read_products(a, o, e))) return -1;
    for (int i = 0; i < o->n_gpu_only && !on_gpu(a); i++)
        log_info("--%s matters on GPUs only: this run computes on the CPU and goes on without it", o->gpu_only[i]);
    return 0;
}

/* A rank computes with whole threads of its own. */
static int check_threads(const struct app *a, const struct options *o, struct err *e) {
    if (on_gpu(a) || o->threads <= 0 || o->threads >= a->n_local) return 0;
    return err_input(e, "--threads %lld is less than a thread for each of the %d ranks that compute here: give --threads %d or more, a smaller --tp, "
                        "or leave --threads out", (long long)o->threads, a->n_local, a->n_local);
}

/* `fi` reads one new token a sequence: it is no kernel for prompts. */
static int check_attention(const struct app *a, const struct options *o, struct err *e) {
    bool fi_first = !strncmp(o->attention, "fi", 2);
    if (on_gpu(a) && fi_first)
        return err_input(e, "--attention-backend %s: fi is for decodes only; use auto or fa,fi (fa for prompts, fi for decodes), or fa for both",
                         o->attention);
    if (on_gpu(a) && options_given(o, "cpu-isa")) log_info("--cpu-isa matters on the CPU only: this run computes on a GPU");
    return 0;
}

static int choose_formats(struct app *a, const struct options *o, struct err *e) {
    struct formats *f = &a->formats;
    if (formats_choose(f, o, &a->config, on_gpu(a), e)) return -1;
    if (f->convert && f->dtype != a->config.dtype)
        log_info("the checkpoint's weights are %s and are brought to %s", dtype_name(a->config.dtype), dtype_name(f->dtype));
    if (f->kv_dtype != f->dtype) log_info("the KV cache is %s", dtype_name(f->kv_dtype));
    if (on_gpu(a) && f->dtype != DT_F32 && f->kv_dtype != f->dtype && f->kv_dtype != DT_FP8_E4M3)
        log_warning("--kv-cache-dtype %s beside %s: attention goes the slow way; the fast kernels read the cache in the weights' format or fp8_e4m3",
                    dtype_name(f->kv_dtype), dtype_name(f->dtype));
    return 0;
}

static int check_seed(const struct options *o, struct err *e) {
    if (o->dummy_weight || !options_given(o, "seed")) return 0;
    return err_input(e, "--seed makes the weights of --dummy-weight; the seed of sampling is a field of each request");
}

int app_join(struct app *a, const struct options *o, struct err *e) {
    *a = (struct app){.n_ranks = (int32_t)o->tp};
    if (app_check_ranks(o, e)) return -1;
    if (join_open(&a->join, o, e)) {
        join_fail(&a->join, e);
        return -1;
    }
    a->n_local = join_local(&a->join, a->n_ranks);
    return 0;
}

bool app_follows(const struct app *a) { return join_follows(&a->join); }

static double seconds_since(uint64_t *mark) {
    uint64_t before = *mark;
    *mark = clock_ns();
    return (double)(*mark - before) / 1e9;
}

static int examine(struct app *a, const struct options *o, struct err *e) {
    uint64_t mark = clock_ns();
    inbox_init(&a->inbox);
    if (check_seed(o, e) || choose_device(a, o, e) || check_threads(a, o, e) || check_attention(a, o, e)) return -1;
    if (a->n_ranks > 1) log_info("Initializing tensor parallelism with %d %s", a->n_ranks, on_gpu(a) ? "GPUs" : "CPU ranks");
    a->dir = model_dir(o, o->dummy_weight ? HUB_CONFIG : HUB_TEXT | HUB_WEIGHTS, e);
    if (!a->dir || config_open(&a->config, a->dir, e) || choose_formats(a, o, e) || plan_memory(a, o, e)) return -1;
    if (!o->dummy_weight && bind_weights(a, e)) return -1;
    a->examined_s = seconds_since(&mark);
    return 0;
}

/* Everything else but the scheduler's thread. */
static int load(struct app *a, const struct options *o, struct err *e) {
    uint64_t mark = clock_ns();
    if (load_model(a, o, e)) return -1;
    double load = seconds_since(&mark);
    if (open_machinery(a, o, e)) return -1;
    log_info("phases: finding the model and planning its memory %.2f s, loading %.2f s, opening %s %.2f s", a->examined_s, load,
             a->n_ranks > 1 ? "the ranks" : "the device", seconds_since(&mark));
    return 0;
}

int app_follow(struct app *a, const struct options *o) {
    struct err e;
    if (examine(a, o, &e) || load(a, o, &e)) join_fail(&a->join, &e);
    if (engine_follow(a->engine, &e)) die(a, &e);
    release(a);
    return 0;
}

void app_abandon(struct app *a, const struct err *e) {
    join_fail(&a->join, e);
    release(a);
}

int app_examine(struct app *a, const struct options *o, struct err *e) {
    int rc = examine(a, o, e);
    if (rc) app_abandon(a, e);
    return rc;
}

int app_open(struct app *a, const struct options *o, struct err *e) {
    uint64_t start = clock_ns();
    if (load(a, o, e)) {
        app_abandon(a, e);
        return -1;
    }
    if (pthread_create(&a->thread, NULL, scheduler_thread, a)) {
        release(a);
        return err_machine(e, "no thread can be started");
    }
    log_info("loaded %s: %s, %d layers, %.2f GB of %s weights, in %.2f s", o->model, a->config.arch->name,
             a->config.n_layers, (double)weight_bytes(a) / 1e9, dtype_name(a->config.dtype),
             a->examined_s + (double)(clock_ns() - start) / 1e9);
    return 0;
}

void app_close(struct app *a) {
    inbox_drain_begin(&a->inbox);
    pthread_join(a->thread, NULL);
    release(a);
}
