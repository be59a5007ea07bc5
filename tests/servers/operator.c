/* Counts the signals that an operator sends: answers every connection with the counts so far, and ends
 * with status 3 after SIGTERM. */
#include "server.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t hups, users, realtimes;

static void on_signal(int signal)
{
    if (signal == SIGHUP)
        hups++;
    else if (signal == SIGUSR1)
        users++;
    else
        realtimes++;
}

static void on_term(int signal)
{
    (void)signal;
    _exit(3);
}

static void handle(int signal, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(signal, &action, NULL);
}

int main(int argc, char **argv)
{
    handle(SIGHUP, on_signal);
    handle(SIGUSR1, on_signal);
    handle(SIGRTMIN + 2, on_signal);
    handle(SIGTERM, on_term);
    int listener = listen_on(argv[argc - 1], 0);
    for (;;) {
        client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        char line[100];
        if (read(client, line, sizeof line) > 0) {
            int length = snprintf(line, sizeof line, "HUP %d USR1 %d RT %d\n", (int)hups, (int)users,
                                  (int)realtimes);
            if (write(client, line, length) < 0)
                return 2;
        }
        close(client);
    }
}
