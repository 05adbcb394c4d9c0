"""A radix tree over the tokens of prefixes that are retained for others.

A path from the root spells a prefix. A node has the tokens of its edge, and of each kind of state a span of
the same positions. Looking a prompt up costs its length, however many prefixes there are. What two prefixes
share is there once. Eviction takes the ends of the least recently used leaves, unit by unit, so the beginning
of a prefix outlives its end.

In a program whose states need restore points, a prefix can be used only up to a point, and so no leaf reaches
beyond its last point.

The engine's thread owns the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clarion.runtime.states.kinds import Span
from clarion.runtime.states.restore import Point, RestorePoints

Spans = tuple[Span, ...]

# Tokens that a file must spare to be read or written. A token's state is read in some microseconds (23 kB of
# SmolLM2 at 1 GB/s), and computed in hundreds; what does not shrink with the tokens, to open a file and a
# recurrent state of 75 MB, takes up to 75 ms, in which a model of that size computes less than these.
LEAST_KEPT = 128


class Node:
    """The positions from `start` to `end` of every prefix that goes through it."""

    __slots__ = ("children", "parent", "points", "spans", "stamp", "start", "tokens")

    def __init__(
        self, parent: Node | None, start: int, tokens: Sequence[int], spans: Spans, stamp: int
    ) -> None:
        self.parent = parent
        self.start = start
        self.tokens = list(tokens)
        self.spans = spans
        self.stamp = stamp  # when it was last used
        self.children: dict[int, Node] = {}  # by the first token of their edges
        self.points: dict[int, Point] = {}  # by length; start < length <= end

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


class Prefixes:
    """The tree. Its nodes hold spans and points until they are evicted."""

    def __init__(self, grain: int, points: RestorePoints, clock: Callable[[], int]) -> None:
        """`grain`: positions that are given back together; `clock` counts uses."""
        self._grain = grain
        self._points = points
        self._clock = clock
        self._root = Node(None, 0, (), (), 0)
        self._leaves: set[Node] = set()

    def longest(self, tokens: Sequence[int]) -> int:
        """How many of the first tokens a retained state can stand for."""
        return self._usable(*self._match(tokens))

    def take(self, tokens: Sequence[int], n: int) -> tuple[list[Spans], list[Point]]:
        """The spans and points on the way of the first n tokens, used now: n = `longest(tokens)`."""
        path, length = self._path(tokens[:n])
        assert length == n
        self._use(path)
        points = [point for node in path for point in node.points.values()]
        return [node.spans for node in path[1:]], points

    def insert(
        self, tokens: Sequence[int], points: Sequence[Point], share: Callable[[int, int], Spans]
    ) -> None:
        """Retains a prefix; `share(start, end)` gives the spans of what the tree does not have yet.

        `points` are those of the prefix. If points are needed, the last one is at its end.
        """
        path, length = self._path(tokens)
        node = path[-1]
        if length < len(tokens):
            spans = share(length, len(tokens))
            if node in self._leaves:
                node.tokens += tokens[length:]
                for span, after in zip(node.spans, spans, strict=True):
                    span.extend(after)
            else:
                path.append(self._add(node, length, tokens[length:], spans))
        self._use(path)
        self._adopt(path, points)

    def oldest(self) -> Node | None:
        """The leaf whose end should go first.

        Where a running sequence holds a leaf's end, evicting it would free nothing: such leaves go last.
        """
        return min(self._leaves, key=age, default=None)

    def cut(self, leaf: Node) -> bool:
        """Evicts the last unit of a leaf; where points are needed, everything down to the point before.

        Returns whether something of the leaf is left.
        """
        ragged: Node | None = leaf
        while ragged is not None:
            ragged = self._cut_once(ragged)
        return leaf in self._leaves

    def point_is_gone(self, point: Point) -> None:
        """A point was evicted. A leaf that ended at it is cut back to its last one."""
        node = point.node
        self._forget(node, point)
        if node in self._leaves and node.end == point.length:
            self.cut(node)

    def clear(self) -> None:
        """Evicts everything."""
        while self._leaves:
            self.cut(next(iter(self._leaves)))

    def nodes(self) -> list[Node]:
        """All nodes but the root, each after its parent."""
        found = [self._root]
        for node in found:
            found += node.children.values()
        return found[1:]

    def _match(self, tokens: Sequence[int]) -> tuple[list[Node], int]:
        """The path from the root that agrees with the tokens, and how many agree: the last node may go on."""
        node = self._root
        path = [node]
        n = 0
        while n < len(tokens) and (child := node.children.get(tokens[n])) is not None:
            node = child
            path.append(node)
            agreeing = common(node.tokens, tokens[n : n + len(node.tokens)])
            n += agreeing
            if agreeing < len(node.tokens):
                break
        return path, n

    def _path(self, tokens: Sequence[int]) -> tuple[list[Node], int]:
        """As `_match`, but the last node ends where the agreement ends: what lies behind is not used."""
        path, n = self._match(tokens)
        if path[-1].end > n:
            path[-1] = self._split(path[-1], n)
        return path, n

    def _usable(self, path: Sequence[Node], n: int) -> int:
        if not self._points.needed:
            return n
        for node in reversed(path):
            lengths = [length for length in node.points if length <= n]
            if lengths:
                return max(lengths)
        return 0

    def _use(self, path: Sequence[Node]) -> None:
        stamp = self._clock()
        for node in path:
            node.stamp = stamp

    def _add(self, parent: Node, start: int, tokens: Sequence[int], spans: Spans) -> Node:
        node = Node(parent, start, tokens, spans, 0)
        parent.children[node.tokens[0]] = node
        self._leaves.add(node)
        return node

    def _split(self, node: Node, at: int) -> Node:
        """Makes a parent of the positions before `at`, and returns it; `node` keeps the rest."""
        n = at - node.start
        tails = tuple(span.split(at) for span in node.spans)
        head = Node(node.parent, node.start, node.tokens[:n], node.spans, node.stamp)
        assert node.parent is not None
        node.parent.children[head.tokens[0]] = head
        node.parent, node.start, node.tokens, node.spans = head, at, node.tokens[n:], tails
        head.children[node.tokens[0]] = node
        for point in [point for length, point in node.points.items() if length <= at]:
            head.points[point.length] = node.points.pop(point.length)
            point.node = head
        return head

    def _cut_once(self, leaf: Node) -> Node | None:
        """As `cut`; returns the parent if it is a leaf now that has to be cut as well."""
        end = self._before(leaf)
        for point in [point for length, point in leaf.points.items() if length > end]:
            self._forget(leaf, point)
        if end > leaf.start:
            for span in leaf.spans:
                span.cut(end)
            del leaf.tokens[end - leaf.start :]
            return None
        return self._remove(leaf)

    def _remove(self, leaf: Node) -> Node | None:
        """Takes a leaf away; returns the parent if it is a leaf now that reaches beyond its last point."""
        for span in leaf.spans:
            span.release()
        parent = leaf.parent
        assert parent is not None
        self._leaves.remove(leaf)
        del parent.children[leaf.tokens[0]]
        if parent is self._root:
            return None
        if parent.children:
            # The leaf may have been the last to share the unit on the border with the parent.
            other = next(iter(parent.children.values()))
            for span, after in zip(parent.spans, other.spans, strict=True):
                span.lean(after)
            return None
        self._leaves.add(parent)
        return parent if self._points.needed and parent.end not in parent.points else None

    def _before(self, leaf: Node) -> int:
        """Where a leaf ends after its last unit is evicted; its start if nothing is left."""
        if self._points.needed:
            return max((length for length in leaf.points if length < leaf.end), default=leaf.start)
        return max(leaf.start, (leaf.end - 1) // self._grain * self._grain)

    def _adopt(self, path: Sequence[Node], points: Sequence[Point]) -> None:
        """Holds those of the points whose lengths have none yet."""
        nodes = iter(path)
        node = next(nodes)
        for point in sorted(points, key=lambda point: point.length):
            while node.end < point.length:
                node = next(nodes)
            if point.length not in node.points:
                self._points.hold(point)
                node.points[point.length] = point
                point.node = node

    def _forget(self, node: Node, point: Point) -> None:
        del node.points[point.length]
        point.node = None
        self._points.drop(point)


def age(leaf: Node) -> tuple[bool, int]:
    """The order in which leaves are evicted."""
    idle = bool(leaf.points) or any(span.tail_is_idle for span in leaf.spans)
    return (not idle, leaf.stamp)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens of two lists agree at the beginning. To compare halves as wholes is faster than token
    by token."""
    n, end = 0, min(len(a), len(b))
    if a[:end] == b[:end]:
        return end
    while end - n > 1:  # the first that differs is one of n to end - 1
        middle = (n + end) // 2
        if a[n:middle] == b[n:middle]:
            n = middle
        else:
            end = middle
    return n
