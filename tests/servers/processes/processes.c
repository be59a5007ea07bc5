/* A server that tries what programs do with processes: a letter per connection says what, and it answers
 * with what it saw. POSIX fixes every answer, so a native run gives the same lines. */
#include "processes.h"
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

char *self;

static uint64_t checksum(uint64_t sum, const char *bytes, size_t length)
{
    for (size_t at = 0; at < length; at++)
        sum = sum * 31 + (unsigned char)bytes[at];
    return sum;
}

void say_stream(const char *what, FILE *stream)
{
    char bytes[1000];
    uint64_t sum = 0;
    size_t all = 0, got;
    while ((got = fread(bytes, 1, sizeof bytes, stream)) > 0) {
        sum = checksum(sum, bytes, got);
        all += got;
    }
    say("%s: %zu bytes, sum %016llx, end %d error %d\n", what, all, (unsigned long long)sum,
        feof(stream) != 0, ferror(stream) != 0);
}

void say_end(const char *what, pid_t child)
{
    int status = -1;
    pid_t got = waitpid(child, &status, 0);
    say("%s: reaped %d exited %d status %d signal %d\n", what, got == child, WIFEXITED(status),
        WEXITSTATUS(status), WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static void answer(char command)
{
    switch (command) {
    case 's': streams(); break;
    case 'f': filters(); break;
    case 'g': groups(); break;
    case 'w': waits(); break;
    case 'o': orphans(); break;
    case 'e': executions(); break;
    case 'p': spawns(); break;
    case 'c': commands(); break;
    case 'q': exit(5);
    case 'u': system("/sbin/ldconfig --version"); break; /* statically linked */
    default: say("what?\n");
    }
}

/* As servers do that start from a shell. */
static void become_daemon(const char *how)
{
    if (strcmp(how, "daemon") == 0) {
        daemon(1, 0);
        return;
    }
    if (fork() > 0)
        exit(0);
    setsid();
    if (fork() > 0)
        _exit(0);
}

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return be_child(argc, argv);
    if (argc > 2)
        become_daemon(argv[1]);
    signal(SIGPIPE, SIG_IGN);
    /* Ignored where a shell has started it in the background. */
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    serve(listen_on(argv[argc - 1], SOCK_CLOEXEC), SOCK_CLOEXEC, answer);
}
