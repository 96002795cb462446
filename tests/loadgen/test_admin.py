import pytest

from loadgen.admin import Admin, AdminError
from tests.fakes.admin_port import FakeAdmin


async def test_windows_are_of_the_devices_asked_for() -> None:
    async with FakeAdmin() as fake:
        for names in ((), ("GPU-0",)):
            admin = Admin(fake.url, names)
            assert [account.device for account in await admin.window(0, 10)] == ["GPU-0"]
            await admin.close()


async def test_a_device_that_is_not_there_is_named_with_those_that_are() -> None:
    async with FakeAdmin() as fake:
        admin = Admin(fake.url, ("gpu7",))
        with pytest.raises(AdminError, match="no gpu7, it has GPU-0"):
            await admin.window(0, 10)
        await admin.close()
