/* A server that says what it sees of the machine it runs on. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

static int client;

static void say(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (write(client, line, length) != length)
        exit(1);
}

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

int main(int argc, char **argv)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(argc > 1 ? atoi(argv[1]) : 7000)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 16) != 0)
        return 1;
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
        close(client);
    }
}
