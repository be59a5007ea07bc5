/* Semaphores of System V. */
#include "ipc.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

union value {
    int number;
    struct semid_ds *status;
    unsigned short *all;
};

static int change(int set, int number, int by, int flags)
{
    struct sembuf operation = {number, by, flags};
    return semop(set, &operation, 1);
}

static int counter;

static void semaphore_and_count(int set)
{
    for (int round = 0; round < ROUNDS; round++) {
        change(set, 0, -1, SEM_UNDO);
        count_in(counter);
        /* The last one leaves it to the end of its process. */
        if (round < ROUNDS - 1)
            change(set, 0, 1, SEM_UNDO);
    }
}

static void wait_for_sleepers(int set, int number, int what, int count)
{
    while (semctl(set, number, what) != count)
        usleep(1000);
}

static pid_t sleeper(int set, int number, int by)
{
    pid_t child = fork();
    if (child == 0)
        _exit(change(set, number, by, 0) == 0 ? 0 : errno == EIDRM ? 43 : 1);
    return child;
}

void semaphores(void)
{
    counter = opened(O_TRUNC);
    key_t key = ftok(path, 's');
    int set = semget(key, 3, IPC_CREAT | IPC_EXCL | 0600);
    say("made %d again %d same %d", set >= 0,
        semget(key, 3, IPC_CREAT | IPC_EXCL | 0600) == -1 && errno == EEXIST,
        semget(key, 0, 0) == set);
    say(" too many %d none %d\n", semget(key, 4, 0) == -1 && errno == EINVAL,
        semget(key + 1, 1, 0) == -1 && errno == ENOENT);
    unsigned short values[3] = {1, 5, 0};
    semctl(set, 0, SETALL, (union value){.all = values});
    say("children %d", all_do(semaphore_and_count, set));
    say(" counted %u value %d by another %d\n", counted(counter), semctl(set, 0, GETVAL),
        semctl(set, 0, GETPID) != getpid());
    struct sembuf both[2] = {{1, -5, 0}, {0, -2, IPC_NOWAIT}};
    say("as a whole %d", semop(set, both, 2) == -1 && errno == EAGAIN);
    semctl(set, 0, GETALL, (union value){.all = values});
    say(" %d %d %d\n", values[0], values[1], values[2]);
    pid_t children[3] = {sleeper(set, 2, -2), sleeper(set, 2, -1), sleeper(set, 1, 0)};
    wait_for_sleepers(set, 2, GETNCNT, 2);
    wait_for_sleepers(set, 1, GETZCNT, 1);
    change(set, 2, 3, 0);
    say("slept %d %d", reap(children[0]), reap(children[1]));
    change(set, 1, -5, 0);
    say(" %d, left %d\n", reap(children[2]), semctl(set, 2, GETNCNT) + semctl(set, 1, GETZCNT));
    struct timespec little = {0, 30000000}, wrong = {0, -1};
    struct sembuf one = {2, -1, 0};
    say("timed out %d", semtimedop(set, &one, 1, &little) == -1 && errno == EAGAIN);
    say(" nonsense %d\n", semtimedop(set, &one, 1, &wrong) == -1 && errno == EINVAL);
    interrupt_soon();
    say("interrupted %d\n", semop(set, &one, 1) == -1 && errno == EINTR);
    interrupt_no_more();
    one.sem_num = 3;
    say("errors %d", semop(set, &one, 1) == -1 && errno == EFBIG);
    say(" %d", change(set, 1, 32767, 0) == 0 && change(set, 1, 1, 0) == -1 && errno == ERANGE);
    say(" %d", semctl(set, 0, SETVAL, (union value){.number = 40000}) == -1 && errno == ERANGE);
    say(" %d\n", semop(set, both, 501) == -1 && errno == E2BIG);
    struct semid_ds status;
    semctl(set, 0, IPC_STAT, (union value){.status = &status});
    say("status %d mode %o mine %d key %d", (int)status.sem_nsems, status.sem_perm.mode,
        status.sem_perm.uid == geteuid(), status.sem_perm.__key == key);
    time_t now = time(NULL);
    say(" times %d %d\n", status.sem_otime <= now && status.sem_otime > now - 60,
        status.sem_ctime <= now && status.sem_ctime > now - 60);
    status.sem_perm.mode = 0640;
    semctl(set, 0, IPC_SET, (union value){.status = &status});
    semctl(set, 0, IPC_STAT, (union value){.status = &status});
    say("mode then %o\n", status.sem_perm.mode);
    children[0] = sleeper(set, 2, -1);
    wait_for_sleepers(set, 2, GETNCNT, 1);
    say("removed %d", semctl(set, 0, IPC_RMID));
    say(" sleeper %d gone %d\n", reap(children[0]), change(set, 0, 1, 0) == -1 && errno == EINVAL);
    close(counter);
}
