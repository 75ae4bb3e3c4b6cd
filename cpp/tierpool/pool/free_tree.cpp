#include "tierpool/pool/free_tree.hpp"

#include <algorithm>

namespace tierpool {

std::uint32_t FreeTree::priority(std::uint32_t node) noexcept {
  // The finaliser of MurmurHash3 (Appleby, public domain): neighbours in index become unrelated in priority.
  std::uint32_t hash = node + 1;
  hash = (hash ^ (hash >> 16)) * 0x85ebca6bU;
  hash = (hash ^ (hash >> 13)) * 0xc2b2ae35U;
  return hash ^ (hash >> 16);
}

void FreeTree::update(std::uint32_t node) noexcept {
  const BlockNode& block = nodes_[node];
  largest_[node] = std::max({block.size_units, largest_below(block.free_left), largest_below(block.free_right)});
}

void FreeTree::split(std::uint32_t node, std::uint64_t offset_units, std::uint32_t& lower,
                     std::uint32_t& upper) noexcept {
  if (node == kNoNode) {
    lower = upper = kNoNode;
    return;
  }
  // Written through locals: the outputs may be this very node's links.
  std::uint32_t rest = kNoNode;
  if (nodes_[node].offset_units < offset_units) {
    std::uint32_t right = kNoNode;
    split(nodes_[node].free_right, offset_units, right, rest);
    nodes_[node].free_right = right;
    lower = node;
    upper = rest;
  } else {
    std::uint32_t left = kNoNode;
    split(nodes_[node].free_left, offset_units, rest, left);
    nodes_[node].free_left = left;
    lower = rest;
    upper = node;
  }
  update(node);
}

std::uint32_t FreeTree::join(std::uint32_t lower, std::uint32_t upper) noexcept {
  if (lower == kNoNode) {
    return upper;
  }
  if (upper == kNoNode) {
    return lower;
  }
  if (priority(lower) > priority(upper)) {
    nodes_[lower].free_right = join(nodes_[lower].free_right, upper);
    update(lower);
    return lower;
  }
  nodes_[upper].free_left = join(lower, nodes_[upper].free_left);
  update(upper);
  return upper;
}

void FreeTree::insert(std::uint32_t node) noexcept {
  const std::uint64_t units = nodes_[node].size_units;
  std::uint32_t* link = &root_;
  while (*link != kNoNode && priority(*link) >= priority(node)) {
    largest_[*link] = std::max(largest_[*link], units);
    link = &link_towards(*link, node);
  }
  std::uint32_t lower = kNoNode;
  std::uint32_t upper = kNoNode;
  split(*link, nodes_[node].offset_units, lower, upper);
  nodes_[node].free_left = lower;
  nodes_[node].free_right = upper;
  update(node);
  *link = node;
}

std::uint32_t& FreeTree::affected_link(std::uint32_t node, std::uint64_t units) noexcept {
  std::uint32_t* link = &root_;
  while (*link != node && largest_[*link] > units) {
    link = &link_towards(*link, node);
  }
  return *link;
}

std::uint32_t FreeTree::removed(std::uint32_t root, std::uint32_t node) noexcept {
  if (root == node) {
    return join(nodes_[node].free_left, nodes_[node].free_right);
  }
  std::uint32_t& link = link_towards(root, node);
  link = removed(link, node);
  update(root);
  return root;
}

void FreeTree::remove(std::uint32_t node) noexcept {
  std::uint32_t& link = affected_link(node, nodes_[node].size_units);
  link = removed(link, node);
}

void FreeTree::refresh(std::uint32_t root, std::uint32_t node) noexcept {
  if (root != node) {
    refresh(link_towards(root, node), node);
  }
  update(root);
}

void FreeTree::resize(std::uint32_t node, std::uint64_t old_units) noexcept {
  refresh(affected_link(node, std::max(old_units, nodes_[node].size_units)), node);
}

std::uint32_t FreeTree::first_fit(std::uint32_t root, std::uint64_t units,
                                  std::uint64_t alignment_units) const noexcept {
  if (largest_below(root) < units) {
    return kNoNode;
  }
  const std::uint32_t lower = first_fit(nodes_[root].free_left, units, alignment_units);
  if (lower != kNoNode) {
    return lower;
  }
  if (nodes_[root].fits(units, alignment_units)) {
    return root;
  }
  return first_fit(nodes_[root].free_right, units, alignment_units);
}

}  // namespace tierpool
