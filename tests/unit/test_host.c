/* test_host.c: what is read of a machine, from made-up /proc and /sys trees; commands with deadlines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "hw/gpu.h"
#include "hw/bandwidth.h"
#include "hw/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/minisgl-host-XXXXXX";

/* Write a file below the made-up root, with its folders. */
static void put(const char *path, const char *text) {
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(full, 0700);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void fresh(void) {
    static char command[64];
    if (strstr(root, "XXXXXX")) assert_non_null(mkdtemp(root));
    snprintf(command, sizeof command, "rm -rf %s/*", root);
    assert_int_equal(system(command), 0);
    put("/proc/meminfo", "MemTotal:       1000 kB\nMemFree:        100 kB\nMemAvailable:    800 kB\n");
}

static struct host_memory memory(void) {
    struct host_memory m;
    host_memory_read(&m, root);
    return m;
}

static void memory_without_groups(void **state) {
    (void)state;
    fresh();
    struct host_memory m = memory();
    assert_int_equal(m.total, 1000 * 1024);
    assert_int_equal(m.left, 800 * 1024);
    assert_int_equal(m.group_limit, 0);
}

static void the_tightest_group_counts_without_idle_file_pages(void **state) {
    (void)state;
    fresh();
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/memory.max", "500000\n");
    put("/sys/fs/cgroup/a/memory.current", "300000\n");
    put("/sys/fs/cgroup/a/memory.stat", "anon 100000\ninactive_file 200000\nactive_file 1\n");
    struct host_memory m = memory();
    assert_int_equal(m.group_limit, 500000);
    assert_int_equal(m.group_used, 100000);
    assert_int_equal(m.left, 400000);
    put("/sys/fs/cgroup/a/b/memory.max", "150000\n");
    put("/sys/fs/cgroup/a/b/memory.current", "160000\n");
    assert_int_equal(memory().left, 0);
}

static void a_group_at_the_mount_counts_too(void **state) {
    (void)state;
    fresh();
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/memory.max", "600000\n");
    put("/sys/fs/cgroup/memory.current", "1000\n");
    assert_int_equal(memory().left, 599000);
}

static void older_kernels_say_it_otherwise(void **state) {
    (void)state;
    fresh();
    put("/proc/self/cgroup", "7:memory:/docker/x\n3:cpu,cpuacct:/\n");
    put("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(memory().left, 800 * 1024);
    put("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "700000\n");
    put("/sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes", "1000\n");
    assert_int_equal(memory().left, 699000);
}

static void processors_nodes_and_quota(void **state) {
    (void)state;
    fresh();
    put("/proc/cpuinfo",
        "processor : 0\nmodel name\t: Made Up 9000\nphysical id\t: 0\n\nmodel name\t: Other\nphysical id\t: 1\n");
    put("/sys/devices/system/cpu/online", "0-5,8\n");
    put("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,4\n");
    put("/proc/self/cgroup", "0::/a\n");
    put("/sys/fs/cgroup/a/cpu.max", "150000 100000\n");
    put("/sys/devices/system/node/node1/cpulist", "4-5,8\n");
    put("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:  70 kB\nNode 1 MemFree: 60 kB\n");
    static struct host h;
    host_read(&h, root);
    assert_string_equal(h.cpu.model, "Made Up 9000");
    assert_int_equal(h.cpu.online, 7);
    assert_int_equal(h.cpu.sockets, 2);
    assert_int_equal(h.cpu.threads_per_core, 2);
    assert_true(h.cpu.quota == 1.5);
    assert_int_equal(h.n_nodes, 1);
    assert_int_equal(h.node[0].id, 1);
    assert_string_equal(h.node[0].cpus, "4-5,8");
    assert_int_equal(h.node[0].memory, 70 * 1024);
    assert_int_equal(h.node[0].free, 60 * 1024);
}

static void an_empty_tree_is_no_error(void **state) {
    (void)state;
    static struct host h;
    host_read(&h, "/nonexistent");
    assert_int_equal(h.memory.total, 0);
    assert_int_equal(h.cpu.online, 0);
    assert_int_equal(h.n_nodes, 0);
}

static void this_machine_has_something(void **state) {
    (void)state;
    static struct host h;
    host_read(&h, "");
    assert_true(h.cpu.allowed >= 1 && h.memory.total > 0 && h.memory.left <= h.memory.total);
}

static void commands_answer_or_do_not(void **state) {
    (void)state;
    char line[8];
    assert_true(host_command_line("echo", "words and more", line, sizeof line));
    assert_string_equal(line, "words a");
    assert_false(host_command_line("no-such-command-anywhere", "x", line, sizeof line));
    assert_false(host_command_line("false", "x", line, sizeof line));
    assert_string_equal(line, "");
}

static void bandwidth_is_a_positive_number(void **state) {
    (void)state;
    struct bandwidth b;
    struct err e;
    assert_int_equal(bandwidth_measure(&b, 3, 1 << 20, 0.01, &e), 0);
    assert_true(b.read > 0 && b.copy > 0 && b.bytes > 0 && b.bytes <= 1 << 20);
}

static void ordinals_of_gpus(void **state) {
    static const char *const wrong[] = {"", ",", "0,", ",0", "0,,1", "0 1", "-1", "256", "0,1,2,3,4", "x", "0x1", "99999999999999999999"};
    int32_t gpu[4], n;
    (void)state;
    assert_int_equal(gpus_named("3", gpu, 4, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(gpu[0], 3);
    assert_int_equal(gpus_named("0,0,255,7", gpu, 4, &n), 0);
    assert_int_equal(n, 4);
    assert_int_equal(gpu[2], 255);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert_int_equal(gpus_named(wrong[i], gpu, 4, &n), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_without_groups),
        cmocka_unit_test(the_tightest_group_counts_without_idle_file_pages),
        cmocka_unit_test(a_group_at_the_mount_counts_too),
        cmocka_unit_test(older_kernels_say_it_otherwise),
        cmocka_unit_test(processors_nodes_and_quota),
        cmocka_unit_test(an_empty_tree_is_no_error),
        cmocka_unit_test(this_machine_has_something),
        cmocka_unit_test(commands_answer_or_do_not),
        cmocka_unit_test(ordinals_of_gpus),
        cmocka_unit_test(bandwidth_is_a_positive_number),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command) ? 1 : failed;
}
