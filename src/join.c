/* join.c: see join.h. The main thread. */
#include "join.h"

#include "base/log.h"
#include "version.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { START_TIMEOUT_S = 1800, SPIN_NS = 200000 };

/* Who else runs on this host: such processes share its GPUs out. */
static int count_here(struct join *j, struct err *e) {
    char mine[64] = "", all[COMM_MAX_RANKS][64];
    gethostname(mine, sizeof mine - 1);
    if (comm_hosts_gather(j->hosts, mine, all, sizeof mine, "comparing the names of hosts", e)) return -1;
    for (int p = 0; p < j->mpi.size; p++)
        if (!strcmp(all[p], mine)) j->here++, j->before += p < j->mpi.rank;
    return 0;
}

int join_open(struct join *j, const struct options *o, struct err *e) {
    *j = (struct join){0};
    if (o->processes <= 1) return 0;
    uint64_t timeout = (uint64_t)o->comm_timeout * 1000000000;
    if (mpi_open(&j->mpi, NULL, (uint64_t)START_TIMEOUT_S * 1000000000, SPIN_NS, e)) return -1;
    if (comm_hosts_new(&j->hosts, &j->mpi, (int32_t)o->tp, timeout, SPIN_NS / 4, e)) return -1;
    if (count_here(j, e)) return -1;
    if (!join_follows(j)) {
        log_info("%d processes over %s, %d rank%s each", j->mpi.size, mpi_describe(&j->mpi), comm_hosts_local(j->hosts),
                 comm_hosts_local(j->hosts) > 1 ? "s" : "");
        return 0;
    }
    /* The first process speaks for all, and tells them when to end: a signal for the whole run must let it drain. */
    log_quiet(LOG_WARNING);
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    return 0;
}

void join_close(struct join *j) {
    if (!j->hosts) return;
    comm_hosts_free(j->hosts);
    mpi_close(&j->mpi);
    *j = (struct join){0};
}

bool join_follows(const struct join *j) { return j->hosts && j->mpi.rank > 0; }
int32_t join_local(const struct join *j, int32_t n_ranks) { return j->hosts ? comm_hosts_local(j->hosts) : n_ranks; }
int32_t join_before(const struct join *j, int32_t n_ranks) { return j->hosts ? j->before * join_local(j, n_ranks) : 0; }
int32_t join_here(const struct join *j, int32_t n_ranks) { return j->hosts ? j->here * join_local(j, n_ranks) : n_ranks; }
int32_t join_first(const struct join *j) { return j->hosts ? comm_hosts_first(j->hosts) : 0; }

/* What must be the same everywhere, and how many pages there may be. */
struct hello {
    char version[32];
    int64_t setting[6];
    char dtype[16], kv_dtype[16];
    uint64_t config;
    int32_t n_pages, max_len;
};

static uint64_t mix(uint64_t h, int64_t x) { return (h ^ (uint64_t)x) * 1099511628211u; }

static uint64_t digest(const struct config *c) {
    uint64_t h = 14695981039346656037u;
    const int64_t parts[] = {c->n_layers, c->n_heads, c->n_kv_heads, c->head_dim, c->hidden, c->ffn, c->moe_ffn, c->vocab,
                             c->n_experts, c->experts_per_token, c->max_position, (int64_t)c->dtype, c->tied};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) h = mix(h, parts[i]);
    return h;
}

static const char *const setting_names[] = {"--tp", "--page-size", "--max-running-requests", "--max-prefill-length", "--max-seq-len-override",
                                            "--seed"};

static int compare(const struct hello *a, const struct hello *b, int process, struct err *e) {
    if (strcmp(a->version, b->version))
        return err_input(e, "process %d runs minisgl %s, process 0 %s: install the same on every host", process, b->version, a->version);
    if (a->config != b->config) return err_input(e, "process %d found another model than process 0: the same folder is needed on every host", process);
    for (int i = 0; i < 6; i++)
        if (a->setting[i] != b->setting[i])
            return err_input(e, "process %d has %s %lld, process 0 has %lld: start all with the same options", process, setting_names[i],
                             (long long)b->setting[i], (long long)a->setting[i]);
    if (strcmp(a->dtype, b->dtype) || strcmp(a->kv_dtype, b->kv_dtype))
        return err_input(e, "process %d has --dtype %s --kv-cache-dtype %s, process 0 has %s and %s: start all with the same options", process,
                         b->dtype, b->kv_dtype, a->dtype, a->kv_dtype);
    return 0;
}

int join_agree(const struct join *j, const struct config *c, const struct options *o, struct room *room, struct err *e) {
    struct hello mine = {.setting = {o->tp, o->page_size, o->max_running, o->max_prefill, o->max_seq_len, o->seed}, .config = digest(c),
                         .n_pages = room->n_pages, .max_len = room->max_len},
                 all[COMM_MAX_RANKS];
    if (!j->hosts) return 0;
    snprintf(mine.version, sizeof mine.version, "%s", MINISGL_VERSION);
    snprintf(mine.dtype, sizeof mine.dtype, "%s", o->dtype);
    snprintf(mine.kv_dtype, sizeof mine.kv_dtype, "%s", o->kv_dtype);
    if (comm_hosts_gather(j->hosts, &mine, all, sizeof mine, "comparing settings", e)) return -1;
    for (int p = 0; p < j->mpi.size; p++) {
        if (compare(&all[0], &all[p], p, e)) return -1;
        if (all[p].n_pages < room->n_pages) room->n_pages = all[p].n_pages;
        if (all[p].max_len < room->max_len) room->max_len = all[p].max_len;
    }
    room->fit.kv = (size_t)room->n_pages * room->fit.page;
    return 0;
}

int join_ready(struct join *j, const struct options *o, struct err *e) {
    char here = 1, all[COMM_MAX_RANKS];
    if (!j->hosts) return 0;
    if (comm_hosts_gather(j->hosts, &here, all, 1, "waiting until all have loaded the model", e)) return -1;
    j->mpi.timeout_ns = (uint64_t)o->comm_timeout * 1000000000;
    return 0;
}

void join_fail(struct join *j, const struct err *e) {
    if (!j->mpi.plugin) return;
    log_error("%s", e->text);
    mpi_abort(&j->mpi, e->kind == ERR_INPUT ? 2 : 1);
}
