/* main.c: picks the subcommand; without one, serves. */
#include "cli/cli.h"
#include "version.h"

#include <stdio.h>
#include <string.h>

static int cmd_version(int argc, char **argv) {
    if (argc > 1) {
        fprintf(stderr, "ERROR: unexpected argument '%s'; `minisgl version` takes none\n", argv[1]);
        return 2;
    }
    puts("minisgl " MINISGL_VERSION);
    return 0;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } subs[] = {{"serve", cmd_serve},       {"generate", cmd_generate}, {"help", cmd_help},
                {"template", cmd_template}, {"tokenize", cmd_tokenize}, {"dummy", cmd_dummy},
                {"simulate", cmd_simulate}, {"doctor", cmd_doctor},     {"selftest", cmd_selftest},
                {"tune", cmd_tune},         {"version", cmd_version},   {"--version", cmd_version}};
    if (argc > 1)
        for (size_t i = 0; i < sizeof subs / sizeof *subs; i++)
            if (!strcmp(argv[1], subs[i].name)) return subs[i].run(argc - 1, argv + 1);
    return cmd_serve(argc, argv);
}
