/* file.c: see file.h. The only state is the list of mapped ranges, which the SIGBUS handler reads. Refuses everything
 * that is not a regular file: a FIFO would hang the start and /dev/zero never ends. */
#include "base/file.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_regular(const char *path, size_t *size, struct err *e) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return err_input(e, "cannot open %s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_input(e, "%s is not a regular file", path);
    }
    *size = (size_t)st.st_size;
    return fd;
}

int file_read(const char *path, size_t max, char **out, size_t *n, struct err *e) {
    size_t size, got = 0;
    int fd = open_regular(path, &size, e);
    if (fd < 0) return -1;
    if (size > max) {
        close(fd);
        return err_input(e, "%s has %zu bytes; at most %zu are accepted", path, size, max);
    }
    char *p = mem_alloc(size + 1);
    while (got < size) {
        ssize_t r = read(fd, p + got, size - got);
        if (r < 0 && errno == EINTR) continue;
        if (r <= 0) break;
        got += (size_t)r;
    }
    close(fd);
    if (got < size) {
        free(p);
        return err_machine(e, "%s: read %zu of %zu bytes", path, got, size);
    }
    p[size] = 0;
    *out = p;
    *n = size;
    return 0;
}

/* ---- mapped ranges ---- */

struct range {
    const char *data;
    size_t len;
    char path[512];
    struct range *next;
};

static pthread_mutex_t ranges_lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *_Atomic ranges; /* nodes are added in front and never freed while a handler may walk them */

static void range_add(const char *data, size_t len, const char *path) {
    struct range *r = mem_zalloc(1, sizeof *r);
    r->data = data;
    r->len = len;
    snprintf(r->path, sizeof r->path, "%s", path);
    pthread_mutex_lock(&ranges_lock);
    r->next = atomic_load(&ranges);
    atomic_store(&ranges, r);
    pthread_mutex_unlock(&ranges_lock);
}

static void range_drop(const char *data) {
    pthread_mutex_lock(&ranges_lock);
    struct range *r = atomic_load(&ranges), *before = NULL;
    while (r && r->data != data) before = r, r = r->next;
    if (r && before)
        before->next = r->next;
    else if (r)
        atomic_store(&ranges, r->next);
    pthread_mutex_unlock(&ranges_lock);
    free(r);
}

static void say(const char *s) {
    if (write(STDERR_FILENO, s, strlen(s)) < 0) return; /* nowhere left to say it */
}

static void on_sigbus(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)context;
    const char *at = info->si_addr;
    for (struct range *r = atomic_load(&ranges); r; r = r->next)
        if (at >= r->data && at < r->data + r->len) {
            say("ERROR: ");
            say(r->path);
            say(" became shorter, or its disk failed, while it was in use\n");
            _exit(1);
        }
    say("ERROR: SIGBUS: a page of memory could not be read\n");
    _exit(1);
}

void file_map_guard(void) {
    struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &sa, NULL);
}

int file_map_open(struct file_map *m, const char *path, struct err *e) {
    size_t size;
    int fd = open_regular(path, &size, e);
    if (fd < 0) return -1;
    *m = (struct file_map){.data = "", .len = 0};
    if (size) {
        void *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            close(fd);
            return err_machine(e, "cannot map %s: %s", path, strerror(errno));
        }
        *m = (struct file_map){.data = p, .len = size};
        range_add(p, size, path);
    }
    close(fd);
    return 0;
}

void file_map_close(struct file_map *m) {
    if (m->len) range_drop(m->data);
    if (m->len) munmap((void *)m->data, m->len);
    *m = (struct file_map){0};
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool file_given(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 || errno != ENOENT;
}

bool dir_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *path_join(const char *dir, const char *name) {
    size_t d = strlen(dir), n = strlen(name);
    char *p = mem_alloc(d + n + 2);
    memcpy(p, dir, d);
    if (d && dir[d - 1] != '/') p[d++] = '/';
    memcpy(p + d, name, n + 1);
    return p;
}

char *program_folder(struct err *e) {
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) {
        err_machine(e, "cannot find the program's own folder: /proc/self/exe: %s", strerror(errno));
        return NULL;
    }
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    return mem_strdup(path);
}

char *program_library(const char *name) {
    static const char *const places[] = {".", "../lib/minisgl"};
    char *folder = program_folder(NULL), *found = NULL;
    for (size_t i = 0; folder && !found && i < sizeof places / sizeof *places; i++) {
        char *place = path_join(folder, places[i]), *path = path_join(place, name);
        if (file_exists(path)) found = path;
        else free(path);
        free(place);
    }
    free(folder);
    return found;
}
