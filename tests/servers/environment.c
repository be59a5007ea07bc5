/* A server that says what it sees of the machine it runs on. */
#include "server.h"
#include <errno.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/capability.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

int capget(cap_user_header_t header, cap_user_data_t data);

static const char *text(struct sockaddr *address)
{
    if (address == NULL || address->sa_family != AF_INET)
        return "none";
    return inet_ntoa(((struct sockaddr_in *)address)->sin_addr);
}

static void interfaces(int socket)
{
    struct ifaddrs *list;
    if (getifaddrs(&list) != 0)
        exit(1);
    for (struct ifaddrs *it = list; it != NULL; it = it->ifa_next)
        say("interface %s %s flags %x\n", it->ifa_name, text(it->ifa_addr), it->ifa_flags);
    freeifaddrs(list);
    struct if_nameindex *names = if_nameindex();
    for (struct if_nameindex *it = names; it->if_index != 0; it++)
        say("index %u %s %u\n", it->if_index, it->if_name, if_nametoindex(it->if_name));
    if_freenameindex(names);
    char name[IF_NAMESIZE];
    say("name %s, unknown %u\n", if_indextoname(2, name), if_nametoindex("nothing0"));
    struct ifreq requests[8];
    struct ifconf all = {.ifc_len = sizeof requests, .ifc_req = requests};
    if (ioctl(socket, SIOCGIFCONF, &all) != 0)
        exit(1);
    for (unsigned at = 0; at < all.ifc_len / sizeof requests[0]; at++) {
        struct ifreq one = requests[at];
        int result = ioctl(socket, SIOCGIFFLAGS, &one);
        say("listed %s %s flags %d %x\n", requests[at].ifr_name, text(&requests[at].ifr_addr), result,
            one.ifr_flags);
    }
}

/* What is done to a process that is named by its id, and to shared memory that has a name. */
static void names(void)
{
    struct sched_param parameter;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = getpid()};
    struct __user_cap_data_struct data[2];
    int nice = getpriority(PRIO_PROCESS, getpid());
    say("priority same %d set %d, scheduler %d parameter %d, capabilities %d, stranger %d\n",
        nice == getpriority(PRIO_PROCESS, 0),
        setpriority(PRIO_PROCESS, getpid(), nice), sched_getscheduler(getpid()),
        sched_getparam(getpid(), &parameter), capget(&header, data), sched_getscheduler(77));
    int made = shm_open("/brolga-test", O_RDWR | O_CREAT | O_EXCL, 0600);
    int again = shm_open("/brolga-test", O_RDWR | O_CREAT | O_EXCL, 0600);
    say("memory made %d, again %d", made >= 0, again >= 0);
    char byte = 7, found = 0;
    if (pwrite(made, &byte, 1, 0) != 1)
        exit(1);
    again = shm_open("brolga-test", O_RDONLY, 0);
    if (pread(again, &found, 1, 0) != 1)
        exit(1);
    int removed = shm_unlink("/brolga-test"), missing = shm_unlink("/brolga-test");
    say(", holds %d, removed %d %d\n", found, removed, missing);
    close(made);
    close(again);
    say("message queue refused %d\n",
        mq_open("/brolga-test", O_RDWR | O_CREAT, 0600, NULL) == -1 && errno == ENOSYS);
}

int main(int argc, char **argv)
{
    int listener = listen_on(argv[argc - 1], 0);
    for (;;) {
        client = accept(listener, NULL, NULL);
        interfaces(listener);
        char host[64];
        gethostname(host, sizeof host);
        struct utsname system;
        uname(&system);
        struct sysinfo info;
        sysinfo(&info);
        say("host %s %s processors %ld uptime %ld load %lu\n", host, system.nodename,
            sysconf(_SC_NPROCESSORS_ONLN), info.uptime > 0, info.loads[0]);
        names();
        close(client);
    }
}
