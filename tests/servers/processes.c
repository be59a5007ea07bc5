/* A server that tries what programs do with processes: a letter per connection says what, and it answers
 * with what it saw. POSIX fixes every answer, so a native run gives the same lines. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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
            say("its leader stays %d\n", setpgid(0, 0) == -1 && errno == EPERM);
            write(ready[1], "x", 1);
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

/* ---- waiting ---- */

static pid_t child_that_exits(int status)
{
    pid_t child = fork();
    if (child == 0)
        _exit(status);
    return child;
}

static void say_info(const char *what, int result, const siginfo_t *info, pid_t child)
{
    say("%s: %d signal %d code %d pid %d status %d\n", what, result, info->si_signo == SIGCHLD,
        info->si_code, info->si_pid == child, info->si_status);
}

static void waits(void)
{
    siginfo_t info;
    int status = 0;
    say("nobody %d\n", wait(NULL) == -1 && errno == ECHILD);
    say("nobody by id %d\n", waitid(P_ALL, 0, &info, WEXITED) == -1 && errno == ECHILD);
    say("bad options %d %d\n", waitid(P_ALL, 0, &info, 0) == -1 && errno == EINVAL,
        waitpid(-1, NULL, 0x1000) == -1 && errno == EINVAL);

    int go[2];
    pipe(go);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        read(go[0], &byte, 1);
        _exit(200);
    }
    say("not yet %d\n", waitpid(child, &status, WNOHANG));
    info.si_pid = 77;
    int result = waitid(P_PID, child, &info, WEXITED | WNOHANG);
    say("not yet by id %d %d\n", result, info.si_pid);
    write(go[1], "x", 1);
    result = waitid(P_PID, child, &info, WEXITED | WNOWAIT);
    say_info("looked at", result, &info, child);
    result = waitid(P_PGID, getpgrp(), &info, WEXITED | WNOHANG);
    say_info("reaped", result, &info, child);
    say("gone %d\n", waitpid(child, NULL, 0) == -1 && errno == ECHILD);

    child = fork();
    if (child == 0) {
        raise(SIGKILL);
        _exit(1);
    }
    result = waitid(P_ALL, 0, &info, WEXITED);
    say_info("killed", result, &info, child);

    /* All have ended before the first is reaped: the last of them closes the pipe. */
    pid_t first = child_that_exits(1), second = child_that_exits(2), third = child_that_exits(3);
    waitid(P_PID, first, NULL, WEXITED | WNOWAIT);
    waitid(P_PID, second, NULL, WEXITED | WNOWAIT);
    waitid(P_PID, third, NULL, WEXITED | WNOWAIT);
    struct rusage usage;
    int ordered = wait(&status) == first && wait3(&status, 0, &usage) == second &&
                  wait4(-1, &status, 0, &usage) == third;
    say("in the order of their making %d, last status %d\n", ordered, WEXITSTATUS(status));
    close(go[0]);
    close(go[1]);

    /* More than there are slots for processes. */
    signal(SIGCHLD, SIG_IGN);
    int made = 0;
    for (int round = 0; round < 300; round++)
        made += child_that_exits(0) > 0;
    say("made %d", made);
    say(" and nothing to wait for %d\n", wait(&status) == -1 && errno == ECHILD);
    struct sigaction action = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &action, NULL);
    child = child_that_exits(4);
    say("nor then %d\n", waitpid(child, &status, 0) == -1 && errno == ECHILD);
    signal(SIGCHLD, SIG_DFL);
}

static void orphans(void)
{
    int ends[2];
    char got[16];
    for (int round = 0; round < 300; round++) {
        pipe(ends);
        pid_t child = fork();
        if (child == 0) {
            pid_t parent = getpid();
            if (fork() == 0) {
                while (getppid() == parent)
                    sched_yield();
                write(ends[1], "orphan", 6);
                _exit(0);
            }
            _exit(9);
        }
        close(ends[1]);
        waitpid(child, NULL, 0);
        ssize_t length = read(ends[0], got, sizeof got);
        if (length != 6) {
            say("round %d: %zd\n", round, length);
            return;
        }
        close(ends[0]);
    }
    say("orphans end, nobody waits %d\n", wait(NULL) == -1 && errno == ECHILD);
}

static void answer(char command)
{
    switch (command) {
    case 's': streams(); break;
    case 'f': filters(); break;
    case 'g': groups(); break;
    case 'w': waits(); break;
    case 'o': orphans(); break;
    case 'q': exit(5);
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
    if (argc > 2)
        become_daemon(argv[1]);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(atoi(argv[argc - 1]))};
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
