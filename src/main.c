/* main.c: the subcommands. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#define VERSION "0.1.0"

static int cmd_version(int argc, char **argv) {
    (void)argc, (void)argv;
    puts("minisgl " VERSION);
    return 0;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } subs[] = {{"help", cmd_help}, {"tokenize", cmd_tokenize}, {"dummy", cmd_dummy},
              {"version", cmd_version}, {"--version", cmd_version}};
    if (argc > 1)
        for (size_t i = 0; i < sizeof subs / sizeof *subs; i++)
            if (!strcmp(argv[1], subs[i].name)) return subs[i].run(argc - 1, argv + 1);
    return cmd_help(1, argv);
}
