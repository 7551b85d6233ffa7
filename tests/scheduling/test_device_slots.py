from __future__ import annotations

from serve_app.scheduling.device_slots import DeviceSlots


class _Batcher:
    def __init__(self, device_slots: DeviceSlots) -> None:
        self.device_slots = device_slots
        self.num_woken = 0

    def wake(self) -> None:
        self.num_woken += 1

    def begins(self) -> bool:
        if self.device_slots.may_begin(self, self.wake):
            self.device_slots.begin(self)
            return True
        return False


def test_one_batch_of_all_models_runs_at_a_time_and_they_alternate() -> None:
    device_slots = DeviceSlots()
    one, other = _Batcher(device_slots), _Batcher(device_slots)
    assert one.begins()
    assert not other.begins()
    assert not one.begins()
    device_slots.end()
    assert (other.num_woken, one.num_woken) == (1, 0)
    assert not one.begins()
    assert other.begins()
    device_slots.end()
    assert one.begins()


def test_key_without_work_does_not_block_the_next() -> None:
    device_slots = DeviceSlots()
    first, second, third = (_Batcher(device_slots) for _ in range(3))
    assert first.begins()
    assert not second.begins()
    assert not third.begins()
    device_slots.end()
    device_slots.withdraw(second)
    assert third.num_woken == 1
    assert third.begins()


def test_device_runs_as_many_batches_as_it_supports() -> None:
    device_slots = DeviceSlots(2)
    first, second, third = (_Batcher(device_slots) for _ in range(3))
    assert first.begins()
    assert second.begins()
    assert not third.begins()
    device_slots.end()
    assert third.num_woken == 1
