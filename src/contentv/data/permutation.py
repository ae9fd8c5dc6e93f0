"""A keyed shuffle of 0..n-1 whose every place is found by itself, whatever n is."""

from dataclasses import dataclass, field

from contentv.base.rng import key

_ROUNDS = 6
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Permutation:
    """A permutation of 0..size-1 chosen by `seed`, a number of 63 bits such as `base.rng.key`'s.

    A balanced Feistel network on the next even number of bits, walked until it lands below `size`
    (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002): less than four walks on
    average, no memory.
    """

    size: int
    seed: int
    _half: int = field(init=False, repr=False)
    _keys: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size}: must be 1 or more")
        object.__setattr__(self, "_half", max(1, ((self.size - 1).bit_length() + 1) // 2))
        keys = tuple(key(self.seed, "round", number) for number in range(_ROUNDS))
        object.__setattr__(self, "_keys", keys)

    def __call__(self, place: int) -> int:
        """What stands at `place`, 0..size-1."""
        if not 0 <= place < self.size:
            raise IndexError(f"place {place} is not in 0..{self.size - 1}")
        value = self._walk(place)
        while value >= self.size:
            value = self._walk(value)
        return value

    def _walk(self, value: int) -> int:
        half, mask = self._half, (1 << self._half) - 1
        left, right = value >> half, value & mask
        for round_key in self._keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        return left << half | right


def _mix(word: int) -> int:
    # The finaliser of SplitMix64: every bit of the result depends on every bit of the word.
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return word ^ word >> 31
