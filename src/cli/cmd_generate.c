/* cmd_generate.c: `minisgl generate`: open the model, answer everything, close it. */
#include "app.h"
#include "cli/cli.h"
#include "cli/front.h"
#include "cli/generate.h"

int cmd_generate(int argc, char **argv) {
    static struct app app;
    struct options o;
    struct err e;
    if (options_parse(&o, CMD_GENERATE, argc, argv, &e)) return cli_fail(&e);
    if (o.help) return cli_help(CMD_GENERATE);
    cli_begin(&o);
    if (o.raw && !o.positional) {
        err_input(&e, "--raw goes with a PROMPT on the command line; a line of input says the same with \"prompt\"");
        return cli_fail(&e);
    }
    if (app_join(&app, &o, &e)) return cli_fail(&e);
    if (app_follows(&app)) return app_follow(&app, &o);
    if (app_examine(&app, &o, &e) || app_open(&app, &o, &e)) return cli_fail(&e);
    struct cli_front front;
    cli_front_init(&front, &app, &o);
    struct generate_args args = {
        .front = &front.front, .in = stdin, .out = stdout, .prompt = o.positional, .raw = o.raw};
    e.kind = ERR_NONE;
    int rc = generate_run(&args, &e);
    app_close(&app);
    cli_front_release(&front);
    if (e.kind != ERR_NONE) cli_fail(&e);
    return rc;
}
