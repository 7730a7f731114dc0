/* Rows for the option table of every service that connects: where to, and with which keys. `st` is the service's options struct,
 * whose fields have the names of the options. */
#ifndef NUNCHI_WIRE_OPTIONS_H
#define NUNCHI_WIRE_OPTIONS_H

#include "common/base/config.h"

#define WIRE_GATEWAYS_OPTION(st)                                                                   \
    CONFIG_OPT(st, gateways, "gateways", OPT_STR, "127.0.0.1:8650", 0, 0,                          \
               "gateways to register with: host:port or ipc:// endpoints, separated by commas; "   \
               "every address behind a name")

#define WIRE_KEYS_OPTIONS(st)                                                                      \
    CONFIG_OPT(st, curve_key_file, "curve-key-file", OPT_STR, NULL, 0, 0,                          \
               "our key pair: two Z85 lines, public then secret"),                                 \
        CONFIG_OPT(st, curve_allow_file, "curve-allow-file", OPT_STR, NULL, 0, 0,                  \
                   "public keys that may connect to us, one a line"),                              \
        CONFIG_OPT(st, curve_server_key, "curve-server-key", OPT_STR, NULL, 0, 40,                 \
                   "the public key of those we connect to"),                                       \
        CONFIG_OPT(st, insecure_network, "insecure-network", OPT_BOOL, "false", 0, 0,              \
                   "allow leaving loopback without keys: only on a private container network")

#endif
