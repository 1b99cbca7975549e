/* plan.c: what the scheduler and the prefix cache cost on the host: microseconds of plan + commit a step, allocations
 * in the step path, a match of a long prompt in a small and in a large tree, memory of a cached token. `make bench &&
 * build/bench/sched/plan [SCENE]`. */
#include "base/clock.h"
#include "base/mem.h"
#include "flow/mail.h"
#include "kv/radix.h"
#include "sched/sched.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- counting allocations: the C library's own names are under these; glibc only ---- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
static bool counting;
static long allocations;
void *malloc(size_t n) {
    allocations += counting;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    allocations += counting;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
    allocations += counting;
    return __libc_realloc(p, n);
}

static uint64_t rng_state = 1;
static uint32_t rng(uint32_t n) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng_state >> 33) % n;
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* ---- steps ---- */

struct scene {
    const char *name, *policy;
    int32_t n_requests, waiting; /* requests made before the clock runs; how many always wait */
    int32_t n_prompt, n_shared, n_out, max_running, n_pages;
    int32_t cached; /* requests that the prefix cache has of before */
};

struct bench {
    struct scene sc;
    struct sched *s;
    struct outbox box;
    struct request *req;
    int32_t *tokens;
    int next;
    int live;
    bool filling;
    uint64_t clock;
};

enum { STEPS = 4000, WARM = 3000, MAX_OUT = 512 };

static void add(struct bench *b) {
    int i = b->next++ % b->sc.n_requests; /* by then the one before it is long finished */
    struct request *r = &b->req[i];
    int32_t *prompt = b->tokens + (size_t)i * (size_t)(b->sc.n_prompt + MAX_OUT);
    for (int32_t k = 0; k < b->sc.n_prompt; k++) prompt[k] = k < b->sc.n_shared ? k * 31 : (int32_t)rng(1 << 30);
    *r = (struct request){.id = (uint64_t)b->next,
                          .prompt = prompt,
                          .n_prompt = b->sc.n_prompt,
                          .outbox = &b->box,
                          .max_tokens = b->filling ? 1 : 1 + b->sc.n_out / 2 + (int32_t)rng((uint32_t)b->sc.n_out),
                          .out_tokens = prompt + b->sc.n_prompt};
    r->sampling.n_logprobs = -1;
    sched_add(b->s, r);
    b->live++;
}

static void take_news(struct bench *b) {
    struct news list[256];
    int n;
    while ((n = outbox_take(&b->box, list, 256, false)) > 0)
        for (int i = 0; i < n; i++) b->live -= list[i].finish != FINISH_NONE;
}

static void answer(const struct batch *batch, struct result *res) {
    for (int32_t i = 0; i < batch->n_rows; i++)
        res->rows[i].n_tokens = 1, res->rows[i].tokens[0] = (int32_t)rng(1 << 30);
}

/* Requests of one token each, so that the cache has their prompts. */
static void fill_cache(struct bench *b, struct batch *batch, struct result *res) {
    b->filling = true;
    for (int32_t made = 0; made < b->sc.cached || b->live;) {
        while (made < b->sc.cached && b->live < 64) add(b), made++;
        if (sched_plan(b->s, batch, b->clock += 1000)) {
            answer(batch, res);
            sched_commit(b->s, batch, res, b->clock += 20000000);
        }
        sched_flush(b->s);
        take_news(b);
    }
    b->filling = false;
}

static void play(const struct scene *sc) {
    struct stats stats = {0};
    struct sched_args a = {.max_running = sc->max_running,
                           .max_prefill = 8192,
                           .max_len = 16384,
                           .page_size = 16,
                           .n_pages = sc->n_pages,
                           .policy = sched_policy(sc->policy),
                           .margin_percent = SCHED_MARGIN_PERCENT,
                           .target_itl = 50000000,
                           .radix = true,
                           .stats = &stats};
    struct bench b = {.sc = *sc, .s = sched_new(&a), .clock = 1};
    struct batch_limits lim = sched_limits(&a);
    struct batch *batch = batch_init(mem_aligned(64, batch_size(&lim)), &lim);
    struct result res = {.rows = mem_zalloc((size_t)lim.max_seqs, sizeof *res.rows)};
    b.req = mem_zalloc((size_t)sc->n_requests, sizeof *b.req);
    b.tokens = mem_array((size_t)sc->n_requests * (size_t)(sc->n_prompt + MAX_OUT), sizeof *b.tokens);
    if (outbox_init(&b.box)) return;
    static uint64_t ns[STEPS];
    uint64_t flush = 0, running = 0, tokens = 0;
    fill_cache(&b, batch, &res);
    for (int step = -WARM; step < STEPS; step++) {
        while (b.live < sc->waiting + (int)stats.running) add(&b);
        counting = step >= 0;
        uint64_t t0 = clock_ns();
        bool planned = sched_plan(b.s, batch, b.clock += 1000);
        uint64_t t1 = clock_ns();
        answer(batch, &res);
        uint64_t t2 = clock_ns();
        if (planned) sched_commit(b.s, batch, &res, b.clock += 20000000);
        uint64_t t3 = clock_ns();
        sched_flush(b.s);
        uint64_t t4 = clock_ns();
        counting = false;
        take_news(&b);
        if (step < 0) continue;
        ns[step] = t1 - t0 + t3 - t2;
        flush += t4 - t3;
        running += (uint64_t)stats.running;
        tokens += (uint64_t)batch->n_tokens;
    }
    qsort(ns, STEPS, sizeof *ns, by_size);
    printf("%-34s %7.1f %7.1f %7.1f %7.1f %8.0f %8.0f %6ld\n", sc->name, (double)ns[STEPS / 2] / 1e3,
           (double)ns[STEPS * 99 / 100] / 1e3, (double)ns[STEPS - 1] / 1e3, (double)flush / STEPS / 1e3,
           (double)running / STEPS, (double)tokens / STEPS, allocations);
    allocations = 0;
    sched_free(b.s);
    outbox_release(&b.box);
    free(batch);
    free(res.rows);
    free(b.req);
    free(b.tokens);
}

/* ---- the tree ---- */

enum { P = 16, LONG = 8192, CACHED = 512 };

static void fill(int32_t *t, int32_t n, uint64_t seed) {
    for (int32_t i = 0; i < n; i++)
        seed = seed * 6364136223846793005u + 1442695040888963407u, t[i] = (int32_t)(seed >> 34);
}

/* n requests of CACHED tokens beside 32 long prompts; then matches of those, in turn. */
static void match(int n) {
    int32_t n_pages = n * (CACHED / P) + 32 * (LONG / P) + 2, row[LONG / P], changed;
    struct pool pool;
    pool_init(&pool, n_pages);
    struct radix *r = radix_new(P, &pool);
    int32_t *tokens = mem_array(LONG, sizeof *tokens), *longs = mem_array(32 * LONG, sizeof *longs);
    uint64_t insert = 0;
    for (int i = 0; i < n + 32; i++) {
        int32_t len = i < n ? CACHED : LONG, *t = i < n ? tokens : longs + (size_t)(i - n) * LONG;
        fill(t, len, (uint64_t)i);
        for (int32_t k = 0; k < len / P; k++) row[k] = pool_take(&pool);
        uint64_t t0 = clock_ns();
        radix_unlock(r, radix_insert(r, radix_root(r, NULL), t, len / P, 0, row, &changed));
        if (i < n) insert += clock_ns() - t0;
    }
    enum { TIMES = 3200 };
    static uint64_t ns[TIMES];
    for (int i = 0; i < TIMES; i++) {
        uint64_t t0 = clock_ns();
        struct radix_hit hit = radix_match(r, radix_root(r, NULL), longs + (size_t)(i % 32) * LONG, LONG, row);
        ns[i] = clock_ns() - t0;
        if (hit.n_pages != LONG / P) printf("wrong: %d pages\n", hit.n_pages);
    }
    qsort(ns, TIMES, sizeof *ns, by_size);
    double cached = (double)radix_pages(r) * P;
    printf("match of %d tokens beside %6d cached requests: median %.1f us, P99 %.1f us; insert of %d: %.1f us; %.1f "
           "bytes a cached token\n",
           LONG, n, (double)ns[TIMES / 2] / 1e3, (double)ns[TIMES * 99 / 100] / 1e3, CACHED,
           n ? (double)insert / n / 1e3 : 0, (double)radix_bytes(r) / cached);
    radix_free(r);
    pool_release(&pool);
    free(tokens);
    free(longs);
}

int main(int argc, char **argv) {
    static const struct scene scenes[] = {
        {"256 running, new ones all the time", "fcfs", 1000, 64, 512, 128, 200, 256, 40000, 0},
        {"the same, lpm", "lpm", 1000, 64, 512, 128, 200, 256, 40000, 0},
        {"256 running, cache full", "fcfs", 1000, 64, 512, 128, 200, 256, 13000, 0},
        {"the same, 100,000 requests in it", "fcfs", 1000, 64, 512, 128, 200, 256, 2411000, 100000},
        {"the same, lpm", "lpm", 1000, 64, 512, 128, 200, 256, 2411000, 100000},
        {"pool full, 500 x 8,192 waiting", "fcfs", 1000, 500, 8192, 4096, 200, 512, 60000, 0},
        {"the same, lpm", "lpm", 1000, 500, 8192, 4096, 200, 512, 60000, 0},
        {"the same, classic", "classic", 1000, 500, 8192, 4096, 200, 512, 60000, 0},
    };
    printf("%-34s %7s %7s %7s %7s %8s %8s %6s\n", "plan + commit, us a step", "median", "P99", "max", "flush",
           "running", "tokens", "allocs");
    if (argc > 1) { /* one scene, for profiles */
        size_t i = (size_t)atoi(argv[1]);
        if (i < sizeof scenes / sizeof *scenes) play(&scenes[i]);
        return 0;
    }
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) play(&scenes[i]);
    match(0);
    match(1000);
    match(100000);
    return 0;
}
