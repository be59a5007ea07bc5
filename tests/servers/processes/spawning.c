/* Children that libc makes: posix_spawn, system, popen. */
#include "processes.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

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

void spawns(void)
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

void commands(void)
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
