/* A server that tries what programs do with processes: a letter per connection says what, and it answers
 * with what it saw. POSIX fixes every answer, so a native run gives the same lines. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
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

/* ---- executing programs ---- */

static char *self;
extern char **environ;

/* What `self child ...` does: says what it was given, and whether it is whole. */
static void *nothing(void *argument)
{
    return argument;
}

static int be_child(int argc, char **argv)
{
    for (int at = 2; at < argc; at++)
        printf("%s ", argv[at]);
    int count = 0;
    for (char **pair = environ; *pair; pair++) {
        if (strncmp(*pair, "LD_PRELOAD=", 11) == 0)
            continue;
        count++;
        if (strncmp(*pair, "ONLY=", 5) == 0)
            printf("%s ", *pair);
    }
    if (argc > 2 && strcmp(argv[2], "count") == 0)
        printf("environment %d ", count);
    pthread_t thread;
    void *result = NULL;
    pthread_create(&thread, NULL, nothing, &count);
    pthread_join(thread, &result);
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    printf("main %d thread %d child %d leader %d blocked %d ignored %d\n", getpid() == gettid(),
           result == &count, waitpid(child, NULL, 0) == child, getpgrp() == getpid(),
           sigismember(&blocked, SIGUSR1), signal(SIGUSR2, SIG_DFL) == SIG_IGN);
    return argc;
}

typedef void (*body)(void);

static int output[2];

/* Says what a child prints that runs `run`, and how it ends. */
static void say_output(const char *what, body run)
{
    pipe(output);
    pid_t child = fork();
    if (child == 0) {
        dup2(output[1], 1);
        run();
        say("%s failed %d\n", what, errno);
        _exit(99);
    }
    close(output[1]);
    char got[4096];
    size_t length = 0;
    ssize_t now;
    while ((now = read(output[0], got + length, sizeof got - length)) > 0)
        length += now;
    close(output[0]);
    say("%s: %.*s", what, (int)length, got);
    say_end(what, child);
}

static void by_execl(void)
{
    execl(self, "name", "child", "a", "b", "c", "d", "e", "f", "g", "h", NULL);
}

static void by_execv(void)
{
    char *arguments[] = {"name", "child", "v", NULL};
    execv(self, arguments);
}

static void by_execve(void)
{
    char *arguments[] = {"name", "child", "count", NULL}, *none[] = {NULL};
    execve(self, arguments, none);
}

static void by_execle(void)
{
    char *only[] = {"ONLY=this", "PATH=/nowhere", NULL};
    execle(self, "name", "child", "count", "b", "c", "d", "e", "f", NULL, only);
}

static void by_execlp(void)
{
    execlp("sh", "sh", "-c", "echo $0 $1 $2 $3 $4 $5", "null", "1", "2", "3", "4", NULL);
}

static void by_execvpe(void)
{
    char *arguments[] = {"sh", "-c", "echo $ONLY", NULL}, *only[] = {"ONLY=that", "LD_PRELOAD=", NULL};
    execvpe("sh", arguments, only);
}

static void by_fexecve(void)
{
    char *arguments[] = {"name", "child", "fexecve", NULL};
    fexecve(open(self, O_RDONLY | O_CLOEXEC), arguments, environ);
}

static void by_execveat(void)
{
    char *arguments[] = {"name", "child", "execveat", NULL};
    execveat(AT_FDCWD, self, arguments, environ, 0);
}

static char script[200];

static void write_script(const char *text)
{
    const char *folder = getenv("TMPDIR");
    snprintf(script, sizeof script, "%s/script-XXXXXX", folder ? folder : "/tmp");
    int file = mkstemp(script);
    write(file, text, strlen(text));
    fchmod(file, 0755);
    close(file);
}

static void by_script(void)
{
    execl(script, "name", "argument", NULL);
}

static void by_script_of_no_shell(void)
{
    execlp(script, "name", "argument", NULL);
}

static void missing(void)
{
    execlp("there-is-no-such-program", "name", NULL);
}

static void not_executable(void)
{
    chmod(script, 0644);
    execl(script, "name", NULL);
}

static void *execute(void *argument)
{
    by_execv();
    return argument;
}

static void from_a_thread(void)
{
    pthread_t threads[3];
    int never[2];
    pipe(never);
    pthread_create(&threads[0], NULL, execute, NULL);
    char byte;
    read(never[0], &byte, 1);
}

static void after_closefrom(void)
{
    closefrom(3);
    by_execv();
}

static void after_close_range(void)
{
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    by_execv();
}

static void after_closing_all(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    for (int fd = 3; fd < (int)limit.rlim_cur && fd < 20000; fd++)
        close(fd);
    by_execv();
}

static void after_marking_all(void)
{
    for (int fd = 3; fd < 2000; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    by_execv();
}

static void after_closing_the_listed(void)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    while ((entry = readdir(folder))) {
        int fd = atoi(entry->d_name);
        if (fd > 2 && fd != dirfd(folder))
            close(fd);
    }
    by_execv();
}

static void by_vfork(void)
{
    pid_t child = vfork();
    if (child == 0) {
        execl(self, "name", "child", "vfork", NULL);
        _exit(1);
    }
    int status;
    waitpid(child, &status, 0);
    _exit(WEXITSTATUS(status));
}

static void with_signals_set(void)
{
    signal(SIGUSR2, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    by_execv();
}

static void executions(void)
{
    say_output("execl", by_execl);
    say_output("execv", by_execv);
    say_output("execve", by_execve);
    say_output("execle", by_execle);
    say_output("execlp", by_execlp);
    say_output("execvpe", by_execvpe);
    say_output("fexecve", by_fexecve);
    say_output("execveat", by_execveat);
    write_script("#! /bin/sh -e\necho script $1\n");
    say_output("script", by_script);
    say_output("not executable", not_executable);
    unlink(script);
    write_script("echo by the shell $1\n");
    say_output("no format", by_script);
    say_output("script without its shell", by_script_of_no_shell);
    unlink(script);
    say_output("missing", missing);
    say_output("from a thread", from_a_thread);
    say_output("closefrom", after_closefrom);
    say_output("close_range", after_close_range);
    say_output("closing all", after_closing_all);
    say_output("marking all", after_marking_all);
    say_output("closing the listed", after_closing_the_listed);
    say_output("vfork", by_vfork);
    say_output("signals", with_signals_set);
}

/* ---- children that libc makes ---- */

static void say_read(const char *what, int from, pid_t child)
{
    char got[4096];
    size_t length = 0;
    ssize_t now;
    while ((now = read(from, got + length, sizeof got - length)) > 0)
        length += now;
    close(from);
    say("%s: %.*s", what, (int)length, got);
    say_end(what, child);
}

static void spawns(void)
{
    char *arguments[] = {"name", "child", "spawned", NULL};
    pid_t child = -1;
    int ends[2];
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;

    pipe(ends);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    posix_spawn_file_actions_addclose(&actions, 19);
    int result = posix_spawn(&child, self, &actions, NULL, arguments, environ);
    close(ends[1]);
    say("spawn %d\n", result);
    say_read("spawned", ends[0], child);

    pipe(ends);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attributes, 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    posix_spawnattr_setsigmask(&attributes, &set);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    posix_spawnattr_setsigdefault(&attributes, &set);
    signal(SIGUSR2, SIG_IGN);
    result = posix_spawn(&child, self, &actions, &attributes, arguments, environ);
    close(ends[1]);
    say("spawn with attributes %d\n", result);
    say_read("spawned", ends[0], child);

    pipe(ends);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, "/usr");
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    char *shell[] = {"sh", "-c", "cat; echo read nothing in $PWD; pwd", NULL};
    char *environment[] = {"ONLY=this", NULL};
    result = posix_spawnp(&child, "sh", &actions, NULL, shell, environment);
    close(ends[1]);
    say("spawnp %d\n", result);
    say_read("spawned", ends[0], child);
    signal(SIGUSR2, SIG_DFL);

    child = 55;
    result = posix_spawn(&child, "/there/is/none", NULL, NULL, arguments, environ);
    say("none %d pid %d left %d\n", result == ENOENT, child, waitpid(-1, NULL, 0) == -1);
    posix_spawn_file_actions_addopen(&actions, 0, "/there/is/none", O_RDONLY, 0);
    result = posix_spawn(&child, self, &actions, NULL, arguments, environ);
    say("action fails %d pid %d\n", result == ENOENT, child);
    result = posix_spawnp(&child, "there-is-no-such-program", NULL, NULL, arguments, environ);
    say("none in the path %d left %d\n", result == ENOENT, waitpid(-1, NULL, 0) == -1);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
}

static volatile sig_atomic_t children_ended;

static void on_child(int signal)
{
    (void)signal;
    children_ended++;
}

static void commands(void)
{
    say("shell %d\n", system(NULL) != 0);
    int status = system("exit 3");
    say("exit %d %d\n", WIFEXITED(status), WEXITSTATUS(status));
    status = system("kill -9 $$");
    say("killed %d %d\n", WIFSIGNALED(status), WTERMSIG(status));
    signal(SIGCHLD, on_child);
    children_ended = 0;
    status = system("kill -INT $PPID; kill -QUIT $PPID; exit 0");
    say("ignored meanwhile %d, blocked meanwhile %d\n", status, children_ended);
    say("not after %d\n", signal(SIGINT, SIG_DFL) == SIG_DFL);
    signal(SIGCHLD, SIG_IGN);
    status = system("exit 0");
    say("nobody to wait for %d %d\n", status, errno == ECHILD);
    signal(SIGCHLD, SIG_DFL);
    status = system("there-is-no-such-command 2> /dev/null");
    say("unknown %d\n", WEXITSTATUS(status));

    FILE *from = popen("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; exit 4", "r");
    FILE *other = popen("cat > /dev/null; exit 6", "we");
    say("at exec %d %d\n", fcntl(fileno(from), F_GETFD), fcntl(fileno(other), F_GETFD));
    FILE *third = popen("read line; echo got $line 1>&2; exit 7", "w");
    say_stream("a long text", from);
    for (int line = 0; line < 20000; line++)
        fprintf(other, "line %d\n", line);
    say("statuses %d", WEXITSTATUS(pclose(from)));
    say(" %d", WEXITSTATUS(pclose(other)));
    fprintf(third, "a line\n");
    say(" %d\n", WEXITSTATUS(pclose(third)));
    say("bad mode %d\n", popen("true", "rw") == NULL && errno == EINVAL);
    from = popen("there-is-no-such-command 2> /dev/null", "r");
    int got = fgetc(from);
    say("unknown %d %d\n", got == EOF, WEXITSTATUS(pclose(from)));
    say("nobody left %d\n", wait(NULL) == -1 && errno == ECHILD);
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
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(atoi(argv[argc - 1]))};
    signal(SIGPIPE, SIG_IGN);
    /* Ignored where a shell has started it in the background. */
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
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
