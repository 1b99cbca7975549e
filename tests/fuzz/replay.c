/* replay.c: a main for the fuzz targets without libFuzzer. It gives a target each file of the folders named on the
 * command line, then spoilt copies of it: cut off at up to 64 places, and 1500 times with a few bytes changed, the same
 * ones each time. An input that crashes, or takes more than LIMIT seconds of processor time, ends the program, which
 * names it.
 *
 *   build/replay/fuzz_X tests/fuzz/corpus/X */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { LIMIT = 10, CUTS = 64, CHANGES = 1500, NAME = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char current[NAME + 64]; /* what the signal handler prints */

static void on_signal(int sig) {
    const char *why = sig == SIGPROF ? "takes too long: " : "crashes: ";
    ssize_t ignored = write(2, why, strlen(why));
    ignored = write(2, current, strlen(current));
    ignored = write(2, "\n", 1);
    (void)ignored;
    if (sig == SIGPROF) _exit(1);
    signal(sig, SIG_DFL);
    raise(sig);
}

static void one(const uint8_t *data, size_t n) {
    uint8_t *exact = malloc(n ? n : 1); /* of this very size, so that a sanitizer sees a read past the end */
    struct itimerval limit = {.it_value.tv_sec = LIMIT}, off = {0};
    if (!exact) abort();
    memcpy(exact, data, n);
    setitimer(ITIMER_PROF, &limit, NULL);
    LLVMFuzzerTestOneInput(exact, n);
    setitimer(ITIMER_PROF, &off, NULL);
    free(exact);
}

static uint32_t next_random(uint32_t *state) { return (*state = *state * 1664525u + 1013904223u) >> 8; }

static void change(uint8_t *data, size_t n, uint32_t *state) {
    static const uint8_t odd[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '}', '[', ']', ',', ':', '%', '-', '9', '\n'};
    for (uint32_t i = next_random(state) % 4 + 1; i && n; i--) {
        size_t at = next_random(state) % n;
        uint32_t r = next_random(state);
        data[at] = r % 3 ? odd[r / 3 % sizeof odd] : (uint8_t)(data[at] ^ 1u << r / 3 % 8);
    }
}

static size_t replay(const char *path, const uint8_t *data, size_t n) {
    uint32_t state = 1;
    size_t step = n / CUTS + 1, runs = 1;
    snprintf(current, sizeof current, "%s", path);
    one(data, n);
    for (size_t cut = 0; cut < n; cut += step, runs++) {
        snprintf(current, sizeof current, "%s, the first %zu bytes", path, cut);
        one(data, cut);
    }
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy) abort();
    for (int i = 0; i < CHANGES; i++, runs++) {
        snprintf(current, sizeof current, "%s, change %d", path, i);
        memcpy(copy, data, n);
        change(copy, n, &state);
        one(copy, n);
    }
    free(copy);
    return runs;
}

static size_t file(const char *path) {
    static uint8_t data[1 << 20];
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(2);
    }
    size_t n = fread(data, 1, sizeof data, f);
    fclose(f);
    return replay(path, data, n);
}

int main(int argc, char **argv) {
    size_t files = 0, runs = 0;
    static const int fatal[] = {SIGPROF, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) signal(fatal[i], on_signal);
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        for (struct dirent *d; dir && (d = readdir(dir));) {
            char path[NAME];
            if (d->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], d->d_name);
            runs += file(path);
            files++;
        }
        if (dir) closedir(dir);
    }
    printf("%s: %zu files, %zu inputs\n", argv[0], files, runs);
    if (!files) fprintf(stderr, "%s: no corpus: name a folder with files\n", argv[0]);
    return files ? 0 : 2;
}
