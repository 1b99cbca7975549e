/* main.c: the subcommands. */
int main(void) { return 2; }
