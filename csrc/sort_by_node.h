// Tokens in the order of the nodes of a tree on which they stand.
#pragma once

#include <cstdint>

namespace {

// All tokens are on nodes [tokens, levels] of one level. `starts` [2^level + 1]: when done, where node by node ends.
inline void sort_by_node(const int32_t* nodes, int64_t tokens, int64_t levels, int64_t level, int32_t* order,
                         int32_t* starts) {
    const int64_t width = int64_t(1) << level, first = width - 1;
    for (int64_t node = 0; node <= width; node++) starts[node] = 0;
    for (int64_t token = 0; token < tokens; token++) starts[nodes[token * levels + level] - first + 1]++;
    for (int64_t node = 1; node <= width; node++) starts[node] += starts[node - 1];
    for (int64_t token = 0; token < tokens; token++)
        order[starts[nodes[token * levels + level] - first]++] = int32_t(token);
}

}  // namespace
