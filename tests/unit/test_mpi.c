/* test_mpi.c: messages between processes, through the MPI plug-in. The program starts itself again under mpirun, once a scene; where there
 * is no mpirun or no plug-in it says so and skips. Deadlines are tested with processes that are stopped, killed or do not come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "comm/mpi.h"
#include "hw/host.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

static char self[PATH_MAX], folder[PATH_MAX + 8];

/* ---- scenes: what each process does; 0 when all was as it should be ---- */

#define CHECK(x) \
    do { \
        if (!(x)) { \
            printf("process %d: %s is not so: %s\n", m->rank, #x, e.text); \
            return 1; \
        } \
    } while (0)

static void fill(unsigned char *p, size_t n, int seed) {
    for (size_t i = 0; i < n; i++) p[i] = (unsigned char)(i * 31 + (size_t)seed);
}

static int ping_pong(struct mpi *m) {
    static unsigned char mine[3 << 20], theirs[3 << 20];
    static const size_t sizes[] = {1, 8, 8192, 65537, 3 << 20};
    struct err e = {0};
    int peer = 1 - m->rank;
    for (int round = 0; round < 50; round++) {
        size_t n = sizes[round % 5];
        fill(mine, n, round);
        memset(theirs, 0, n);
        if (m->rank == 0) CHECK(!mpi_send(m, peer, round, mine, n, "ping", &e));
        CHECK(!mpi_receive(m, peer, round, theirs, n, "ping", &e));
        CHECK(!memcmp(mine, theirs, n));
        if (m->rank == 1) CHECK(!mpi_send(m, peer, round, mine, n, "pong", &e));
    }
    return 0;
}

/* Many messages in both directions at once, empty ones among them, received in another order than sent. */
static int exchange(struct mpi *m) {
    static unsigned char out[40][100000], in[40][100000];
    struct mpi_message send[40], receive[40];
    struct err e = {0};
    for (int i = 0; i < 40; i++) {
        size_t n = i % 7 == 3 ? 0 : (size_t)i * 2500 + 1;
        fill(out[i], n, i + m->rank);
        send[i] = (struct mpi_message){1 - m->rank, i, out[i], n};
        receive[39 - i] = (struct mpi_message){1 - m->rank, i, in[i], n};
    }
    for (int round = 0; round < 5; round++) {
        memset(in, 0, sizeof in);
        CHECK(!mpi_exchange(m, send, 40, receive, 40, "exchange", &e));
        for (int i = 0; i < 40; i++) {
            fill(out[i], send[i].n, i + 1 - m->rank);
            CHECK(!memcmp(in[i], out[i], send[i].n));
            fill(out[i], send[i].n, i + m->rank);
        }
    }
    return 0;
}

/* A message of another length means that the processes are not at the same place. */
static int other_length(struct mpi *m) {
    char b[64] = {0};
    struct err e = {0};
    if (m->rank == 1) {
        CHECK(!mpi_send(m, 0, 1, b, 10, "short", &e));
        CHECK(!mpi_send(m, 0, 2, b, 64, "long", &e));
        return 0;
    }
    CHECK(mpi_receive(m, 1, 1, b, 20, "step 7", &e) == -1);
    CHECK(strstr(e.text, "step 7") && strstr(e.text, "expected 20 bytes from process 1, found 10"));
    CHECK(mpi_receive(m, 1, 2, b, 20, "step 8", &e) == -1 && strstr(e.text, "process 1"));
    return 0;
}

/* Process 1 stops; 0, which receives or sends, says so and ends the run. */
static int stopped(struct mpi *m, bool sends) {
    static char big[64 << 20];
    struct err e = {0};
    m->timeout_ns = 500 * MS;
    if (m->rank == 1) {
        printf("pid %d\n", (int)getpid());
        fflush(stdout);
        CHECK(!mpi_send(m, 0, 1, big, 1, "going", &e));
        raise(SIGSTOP);
        sleep(60);
        return 1;
    }
    CHECK(!mpi_receive(m, 1, 1, big, 1, "going", &e));
    usleep(100000);
    if (sends) CHECK(mpi_send(m, 1, 3, big, sizeof big, "step 12, batch", &e) == -1);
    else CHECK(mpi_receive(m, 1, 2, big, 100, "step 12, sum of layer 3", &e) == -1);
    printf("%s\n", e.text);
    fflush(stdout);
    mpi_abort(m, 1);
}

static int stopped_sender(struct mpi *m) { return stopped(m, false); }
static int stopped_receiver(struct mpi *m) { return stopped(m, true); }

/* Process 1 is killed: mpirun ends the others. */
static int killed(struct mpi *m) {
    struct err e = {0};
    char b;
    printf("pid %d\n", (int)getpid());
    fflush(stdout);
    if (m->rank == 1) raise(SIGKILL);
    m->timeout_ns = 20000 * MS;
    mpi_receive(m, 1, 1, &b, 1, "nothing", &e);
    printf("process 0 went on: %s\n", e.text);
    return 1;
}

static volatile bool stop;

static void *stop_soon(void *arg) {
    (void)arg;
    usleep(200000);
    stop = true;
    return NULL;
}

static int waits_without_deadline(struct mpi *m) {
    struct err e = {0};
    pthread_t t;
    int x = 5;
    m->timeout_ns = 100 * MS;
    if (m->rank == 0) {
        usleep(400000); /* longer than the timeout */
        CHECK(!mpi_send(m, 1, 4, &x, sizeof x, "work", &e));
        return 0;
    }
    x = 0;
    CHECK(mpi_wait_for(m, 0, 4, &x, sizeof x, MS, &stop, &e) == 0 && x == 5);
    pthread_create(&t, NULL, stop_soon, NULL);
    CHECK(mpi_wait_for(m, 0, 4, &x, sizeof x, MS, &stop, &e) == 1);
    pthread_join(t, NULL);
    return -1; /* the receive is still open: leave without closing */
}

static const struct {
    const char *name;
    int (*run)(struct mpi *m);
} scenes[] = {{"ping_pong", ping_pong}, {"exchange", exchange},           {"other_length", other_length},
              {"stopped_sender", stopped_sender}, {"stopped_receiver", stopped_receiver}, {"killed", killed}, {"waits", waits_without_deadline}};

static int play(const char *name) {
    struct mpi m;
    struct err e;
    if (mpi_open(&m, folder, 10000 * MS, 20000, &e)) {
        printf("%s\n", e.text);
        return 1;
    }
    if (m.size != 2 || !*mpi_describe(&m)) return 1;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
        if (!strcmp(scenes[i].name, name)) {
            int rc = scenes[i].run(&m);
            if (rc > 0) mpi_abort(&m, rc);
            mpi_close(&m);
            return 0;
        }
    return 1;
}

/* ---- the stage ---- */

static char said[8192];

/* Run a scene under mpirun; its exit code, and what it said in `said`. */
static int run(const char *scene) {
    char command[PATH_MAX + 256];
    snprintf(command, sizeof command,
             /* MPI keeps memory for good */
             "ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 timeout 60 mpirun -np 2 --oversubscribe '%s' %s 2>&1", self, scene);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(said, 1, sizeof said - 1, f);
    said[n] = 0;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect_success(const char *scene) {
    char line[200], path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/minisgl_mpi.so", folder);
    if (!host_command_line("mpirun", "--version", line, sizeof line) || !file_exists(path)) {
        print_message("skipped: there is no mpirun, or the MPI plug-in was not built (apt-get install openmpi-bin libopenmpi-dev)\n");
        skip();
    }
    if (!scene) return;
    int rc = run(scene);
    if (rc) fail_msg("%s: exit code %d: %s", scene, rc, said);
}

static void messages_arrive_whole(void **state) {
    (void)state;
    expect_success("ping_pong");
}
static void many_at_once(void **state) {
    (void)state;
    expect_success("exchange");
}
static void lengths_are_checked(void **state) {
    (void)state;
    expect_success("other_length");
}
static void waiting_for_work_has_no_deadline(void **state) {
    (void)state;
    expect_success("waits");
}

/* No process whose "pid N" was said may be left. */
static void all_are_gone(void) {
    int found = 0;
    for (const char *p = said; (p = strstr(p, "pid ")); p++) {
        int pid = atoi(p + 4);
        found++;
        for (int i = 0; i < 50 && kill(pid, 0) == 0; i++) usleep(100000);
        assert_int_equal(kill(pid, 0), -1);
    }
    assert_true(found > 0);
}

static void a_stopped_process_is_named_and_the_run_ends(void **state) {
    (void)state;
    expect_success(NULL);
    assert_int_equal(run("stopped_sender"), 1);
    if (!strstr(said, "process 1 sent nothing within 0.5 s (step 12, sum of layer 3)")) fail_msg("%s", said);
    all_are_gone();
    assert_int_equal(run("stopped_receiver"), 1);
    if (!strstr(said, "process 1 did not take what was sent within 0.5 s (step 12, batch)")) fail_msg("%s", said);
    all_are_gone();
}

static void a_killed_process_ends_the_run(void **state) {
    (void)state;
    expect_success(NULL);
    assert_int_not_equal(run("killed"), 0);
    assert_null(strstr(said, "went on"));
    all_are_gone();
}

static void without_the_plugin_it_says_where_it_looked(void **state) {
    (void)state;
    struct mpi m;
    struct err e;
    assert_int_equal(mpi_open(&m, "/nonexistent", MS, 0, &e), -1);
    assert_int_equal(e.kind, ERR_INPUT);
    assert_non_null(strstr(e.text, "/nonexistent"));
    mpi_close(&m);
}

int main(int argc, char **argv) {
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return 1;
    snprintf(folder, sizeof folder, "%.*s/..", (int)(strrchr(self, '/') - self), self); /* build/unit's parent */
    if (argc > 1) return play(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_plugin_it_says_where_it_looked),
        cmocka_unit_test(messages_arrive_whole),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(lengths_are_checked),
        cmocka_unit_test(waiting_for_work_has_no_deadline),
        cmocka_unit_test(a_stopped_process_is_named_and_the_run_ends),
        cmocka_unit_test(a_killed_process_ends_the_run),
    };
    return cmocka_run_group_tests_name("mpi", tests, NULL, NULL);
}
