/* A server that tries what programs do with processes: a letter per connection says what, and it answers
 * with what it saw. POSIX fixes every answer, so a native run gives the same lines. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static int client;

static void say(const char *format, ...)
{
    char line[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (write(client, line, length) != length)
        exit(1);
}

static uint64_t checksum(uint64_t sum, const char *bytes, size_t length)
{
    for (size_t at = 0; at < length; at++)
        sum = sum * 31 + (unsigned char)bytes[at];
    return sum;
}

/* Reads to the end. */
static void say_stream(const char *what, FILE *stream)
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

static void say_end(const char *what, pid_t child)
{
    int status = -1;
    pid_t got = waitpid(child, &status, 0);
    say("%s: reaped %d exited %d status %d signal %d\n", what, got == child, WIFEXITED(status),
        WEXITSTATUS(status), WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

/* ---- streams over pipes and sockets ---- */

static void print_lines(int from, int to)
{
    for (int line = from; line < to; line++)
        printf("line %d of a text that is longer than any pipe holds\n", line);
}

static void streams(void)
{
    int ends[2];
    pipe(ends);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        dup2(ends[1], 1);
        close(ends[1]);
        print_lines(0, 5000);
        fflush(stdout);
        print_lines(5000, 5010);
        exit(7); /* flushes the rest */
    }
    close(ends[1]);
    FILE *in = fdopen(ends[0], "r");
    char first[100];
    fgets(first, sizeof first, in);
    say("fileno %d first %s", fileno(in) == ends[0], first);
    int result = fseek(in, 0, SEEK_SET);
    say("seek %d errno %d\n", result, errno == ESPIPE);
    say_stream("printed by a child", in);
    say_end("its end", child);
    result = fclose(in);
    say("close %d again %d\n", result, close(ends[0]));

    pipe(ends);
    child = fork();
    if (child == 0) {
        close(ends[1]);
        in = fdopen(ends[0], "r");
        say_stream("written by the parent", in);
        _exit(3);
    }
    close(ends[0]);
    FILE *out = fdopen(ends[1], "w");
    say("wrong mode %d\n", fdopen(ends[1], "r") == NULL && errno == EINVAL);
    for (int number = 0; number < 30000; number++)
        fprintf(out, "%d %s\n", number, "and more");
    fflush(out);
    say("dprintf %d\n", dprintf(fileno(out), "%0*d|%.2f|%s\n", 100000, 42, 2.5, "end"));
    char *block = malloc(300000);
    memset(block, 'b', 300000);
    say("write %zd\n", write(fileno(out), block, 300000));
    free(block);
    say("close %d\n", fclose(out));
    say_end("the reader", child);

    pipe(ends);
    close(ends[0]);
    out = fdopen(ends[1], "w");
    fprintf(out, "nobody reads");
    result = fclose(out);
    say("nobody reads %d %d\n", result, errno == EPIPE);

    FILE *connection = fdopen(dup(client), "r+");
    fprintf(connection, "over the connection %d\n", 5);
    fclose(connection);
}

/* Reads from standard input through stdio, as filters do. */
static void filters(void)
{
    int to[2], from[2];
    pipe(to);
    pipe(from);
    pid_t child = fork();
    if (child == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[0]);
        close(to[1]);
        close(from[0]);
        close(from[1]);
        char word[100];
        while (scanf("%99s", word) == 1) {
            printf("<%s>", word);
            fflush(stdout);
        }
        exit(0);
    }
    close(to[0]);
    close(from[1]);
    for (int round = 0; round < 3; round++) {
        char answer[100];
        dprintf(to[1], "word%d \n", round);
        ssize_t got = read(from[0], answer, sizeof answer);
        say("filtered %.*s\n", (int)got, answer);
    }
    close(to[1]);
    close(from[0]);
    say_end("the filter", child);
}

/* ---- process groups and sessions ---- */

static void groups(void)
{
    pid_t me = getpid();
    say("own group %d session %d\n", getpgrp() == getpgid(0), getsid(0) == getsid(me));
    int ready[2], go[2];
    pipe(ready);
    pipe(go);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        read(go[0], &byte, 1);
        say("child leads %d\n", getpgrp() == getpid());
        say("leader's setsid %d\n", setsid() == -1 && errno == EPERM);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            pid_t session = setsid();
            say("new session %d %d %d\n", session == getpid(), getpgrp() == session,
                getsid(0) == session);
            write(ready[1], "x", 1);
            say("its leader stays %d\n", setpgid(0, 0) == -1 && errno == EPERM);
            _exit(0);
        }
        int status;
        read(ready[0], &byte, 1);
        say("by own group %d\n", waitpid(0, &status, 0) == -1 && errno == ECHILD);
        say("by its group %d\n", waitpid(-grandchild, &status, 0) == grandchild);
        _exit(0);
    }
    say("setpgid %d", setpgid(child, child));
    say(" %d\n", getpgid(child) == child);
    say("not in the group %d\n", waitpid(0, NULL, WNOHANG) == -1 && errno == ECHILD);
    write(go[1], "x", 1);
    int status = -1;
    say("by group %d", waitpid(-child, &status, 0) == child);
    say(" status %d\n", status);
    say("gone %d\n", getpgid(child) == -1 && errno == ESRCH);
    say("terminal %d %d\n", tcgetpgrp(0) == -1 && errno == ENOTTY, tcsetpgrp(0, me) == -1);
    close(ready[0]);
    close(ready[1]);
    close(go[0]);
    close(go[1]);
}

static void answer(char command)
{
    switch (command) {
    case 's': streams(); break;
    case 'f': filters(); break;
    case 'g': groups(); break;
    default: say("what?\n");
    }
}

int main(int argc, char **argv)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(argc > 1 ? atoi(argv[1]) : 7000)};
    signal(SIGPIPE, SIG_IGN);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 16) != 0)
        return 1;
    for (;;) {
        client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        char command = 0;
        if (client >= 0 && read(client, &command, 1) == 1)
            answer(command);
        close(client);
    }
}
