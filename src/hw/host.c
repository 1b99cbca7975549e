/* host.c: see host.h. No state. Refuses nothing: what cannot be read is left empty. */
#include "hw/host.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- small files of numbers ---- */

static FILE *open_at(const char *root, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static FILE *open_at(const char *root, const char *fmt, ...) {
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s", root);
    if (n < 0 || n >= PATH_MAX) return NULL;
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(path + n, sizeof path - (size_t)n, fmt, ap);
    va_end(ap);
    return m < 0 || m >= PATH_MAX - n ? NULL : fopen(path, "re");
}

/* The first number of a file, closed; false when there is none (such as the word "max"). */
static bool number_of(FILE *f, size_t *out) {
    if (!f) return false;
    bool ok = fscanf(f, "%zu", out) == 1;
    fclose(f);
    return ok;
}

/* The number behind a label at the start of a line of a file, closed; 0 when the label is not there. */
static size_t labelled(FILE *f, const char *label) {
    char line[256];
    size_t n = strlen(label), value = 0;
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, label, n)) {
            value = strtoull(line + n, NULL, 10);
            break;
        }
    if (f) fclose(f);
    return value;
}

static void first_line(FILE *f, char *to, size_t n) {
    if (!f) return;
    if (!fgets(to, (int)n, f)) to[0] = 0;
    to[strcspn(to, "\n")] = 0;
    fclose(f);
}

/* ---- control groups ---- */

/* The path of this process in a hierarchy of /proc/self/cgroup: "0::/a/b" has the unified one (controller NULL),
 * "7:memory:/a/b" an older kernel's memory. */
static bool group_path(const char *root, const char *controller, char *path, size_t n) {
    FILE *f = open_at(root, "/proc/self/cgroup");
    char line[PATH_MAX];
    bool found = false;
    while (!found && f && fgets(line, sizeof line, f)) {
        char *names = strchr(line, ':'), *where = names ? strchr(names + 1, ':') : NULL;
        if (!where) continue;
        *where++ = 0;
        names++;
        found = controller ? !strcmp(names, controller) || (!strcmp(controller, "cpu") && !strcmp(names, "cpu,cpuacct"))
                           : !*names;
        where[strcspn(where, "\n")] = 0;
        if (found) snprintf(path, n, "%s", strcmp(where, "/") ? where : "");
    }
    if (f) fclose(f);
    return found;
}

/* One level up; false at the top. A group seen from inside a container may lie outside the mounted tree: the
 * levels that are not there are passed over. */
static bool parent(char *path) {
    char *slash = strrchr(path, '/');
    if (!slash) return false;
    *slash = 0;
    return true;
}

/* The names that the two generations of the memory controller use. */
struct memory_files {
    const char *controller, *mount, *limit, *used, *file_pages;
};

static void memory_of_groups(struct host_memory *m, const char *root, const struct memory_files *w) {
    char path[PATH_MAX];
    if (!group_path(root, w->controller, path, sizeof path)) return;
    do {
        size_t limit, used = 0;
        if (!number_of(open_at(root, "%s%s/%s", w->mount, path, w->limit), &limit)) continue;
        if (m->total && limit >= m->total) continue; /* an older kernel says "no limit" by a huge number */
        number_of(open_at(root, "%s%s/%s", w->mount, path, w->used), &used);
        /* The page cache of files that are not in use goes when memory is wanted. */
        size_t cache = labelled(open_at(root, "%s%s/memory.stat", w->mount, path), w->file_pages);
        used = used > cache ? used - cache : 0;
        size_t left = limit > used ? limit - used : 0;
        if (m->group_limit && left >= m->left) continue;
        m->group_limit = limit;
        m->group_used = used;
        if (left < m->left) m->left = left;
    } while (parent(path));
}

void host_memory_read(struct host_memory *m, const char *root) {
    static const struct memory_files now = {NULL, "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "};
    static const struct memory_files older = {"memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                              "memory.usage_in_bytes", "total_inactive_file "};
    *m = (struct host_memory){.total = labelled(open_at(root, "/proc/meminfo"), "MemTotal:") * 1024,
                              .available = labelled(open_at(root, "/proc/meminfo"), "MemAvailable:") * 1024};
    m->left = m->available;
    memory_of_groups(m, root, &now);
    memory_of_groups(m, root, &older);
}

size_t host_memory_left(void) {
    struct host_memory m;
    host_memory_read(&m, "");
    return m.left;
}

/* The tightest quota of time, in processors; 0 when there is none. */
static double quota_of_groups(const char *root) {
    char path[PATH_MAX];
    double least = 0;
    if (!group_path(root, NULL, path, sizeof path)) return 0;
    do {
        FILE *f = open_at(root, "/sys/fs/cgroup%s/cpu.max", path);
        double quota, period;
        if (f && fscanf(f, "%lf %lf", &quota, &period) == 2 && period > 0 && (!least || quota / period < least))
            least = quota / period;
        if (f) fclose(f);
    } while (parent(path));
    return least;
}

/* ---- processors and nodes ---- */

/* How many numbers a list such as "0-3,8" names. */
static int count_list(const char *list) {
    int n = 0;
    for (const char *p = list; *p;) {
        char *end;
        long from = strtol(p, &end, 10), to = from;
        if (end == p) break;
        if (*end == '-') to = strtol(end + 1, &end, 10);
        n += (int)(to - from + 1);
        p = end + (*end == ',');
    }
    return n;
}

static void read_cpuinfo(struct host_cpu *c, const char *root) {
    FILE *f = open_at(root, "/proc/cpuinfo");
    char line[512];
    int socket = -1, highest = -1;
    while (f && fgets(line, sizeof line, f)) {
        if (!c->model[0] && sscanf(line, "model name : %95[^\n]", c->model) == 1) continue;
        if (sscanf(line, "physical id : %d", &socket) == 1 && socket > highest) highest = socket;
    }
    if (f) fclose(f);
    c->sockets = highest + 1;
}

static void read_cpu(struct host_cpu *c, const char *root) {
    char list[512] = "";
    cpu_set_t set;
    read_cpuinfo(c, root);
    first_line(open_at(root, "/sys/devices/system/cpu/online"), list, sizeof list);
    c->online = count_list(list);
    c->allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : c->online;
    list[0] = 0;
    first_line(open_at(root, "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list"), list, sizeof list);
    c->threads_per_core = count_list(list);
    c->quota = quota_of_groups(root);
}

static void read_nodes(struct host *h, const char *root) {
    for (int id = 0; id < HOST_NODES_MAX; id++) {
        FILE *f = open_at(root, "/sys/devices/system/node/node%d/cpulist", id);
        if (!f) continue;
        struct host_node *n = &h->node[h->n_nodes++];
        n->id = id;
        first_line(f, n->cpus, sizeof n->cpus);
        char label[64];
        snprintf(label, sizeof label, "Node %d MemTotal:", id);
        n->memory = labelled(open_at(root, "/sys/devices/system/node/node%d/meminfo", id), label) * 1024;
        snprintf(label, sizeof label, "Node %d MemFree:", id);
        n->free = labelled(open_at(root, "/sys/devices/system/node/node%d/meminfo", id), label) * 1024;
    }
}

void host_read(struct host *h, const char *root) {
    *h = (struct host){0};
    read_cpu(&h->cpu, root);
    host_memory_read(&h->memory, root);
    read_nodes(h, root);
}

/* ---- commands ---- */

enum { COMMAND_MS = 5000 };

static pid_t start(const char *command, const char *argument, int *from) {
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC)) return -1;
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(pipes[1], STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execlp(command, command, argument, (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    if (child < 0)
        close(pipes[0]);
    else
        *from = pipes[0];
    return child;
}

/* Everything that comes until the writer ends or time is up; what does not fit is dropped. False: time is up. */
static bool drain(int from, char *to, size_t n) {
    uint64_t end = clock_ns() + (uint64_t)COMMAND_MS * 1000000;
    size_t have = 0;
    for (;;) {
        uint64_t now = clock_ns();
        struct pollfd p = {.fd = from, .events = POLLIN};
        if (now >= end || poll(&p, 1, (int)((end - now) / 1000000) + 1) == 0) return false;
        char more[512];
        ssize_t got = read(from, more, sizeof more);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        size_t take = (size_t)got < n - 1 - have ? (size_t)got : n - 1 - have;
        memcpy(to + have, more, take);
        have += take;
        to[have] = 0;
    }
    return true;
}

bool host_command_line(const char *command, const char *argument, char *line, size_t n) {
    int from = -1, status = 0;
    line[0] = 0;
    pid_t child = start(command, argument, &from);
    if (child < 0) return false;
    if (!drain(from, line, n)) kill(child, SIGKILL);
    close(from);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    line[strcspn(line, "\n")] = 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 && line[0];
}
