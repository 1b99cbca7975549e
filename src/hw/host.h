/* host.h: what this machine is: processors, NUMA nodes, memory and the limits of its control groups, MPI.
 *
 * Linux: /proc and /sys. Everything is read afresh at each call and nothing is kept; any thread may call. A fact
 * that the system does not tell is left 0 or empty: nothing here fails. Sizes are bytes. `root` goes in front of every
 * path
 * ("" for the real machine; tests give a made-up tree). */
#ifndef MINISGL_HW_HOST_H
#define MINISGL_HW_HOST_H
#include <stdbool.h>
#include <stddef.h>

enum { HOST_NODES_MAX = 64 };

struct host_cpu {
    char model[96];
    int online;  /* processors that run */
    int allowed; /* of them, those this process may use (affinity) */
    int sockets, threads_per_core;
    double quota; /* processors' worth of time that the control group allows; 0: no limit */
};

struct host_memory {
    size_t total, available; /* the machine's, page cache counted as available */
    size_t group_limit,
        group_used; /* the tightest control group's; 0: no limit. Used: without file pages that can go */
    size_t left;    /* what this process may still take: the smaller of the two */
};

struct host_node {
    int id;
    char cpus[64]; /* "0-15,32-47" */
    size_t memory, free;
};

struct host {
    struct host_cpu cpu;
    struct host_memory memory;
    struct host_node node[HOST_NODES_MAX];
    int n_nodes;
};

void host_read(struct host *h, const char *root);
void host_memory_read(struct host_memory *m, const char *root);
/* What this process may still take, of the real machine. */
size_t host_memory_left(void);

/* The first line that a command writes, without its line end; the command is looked up on the PATH and killed after
 * five seconds. False: it is not there, failed, or said nothing. */
bool host_command_line(const char *command, const char *argument, char *line, size_t n);

#endif
