import pytest

from loadgen.energy.admin import Admin, AdminError
from tests.fakes.admin_port import FakeAdmin


async def test_windows_contain_only_the_selected_devices() -> None:
    async with FakeAdmin() as fake:
        for names in ((), ("GPU-0",)):
            admin = Admin(fake.url, names)
            assert [account.device for account in await admin.window(0, 10)] == ["GPU-0"]
            await admin.close()


async def test_an_unknown_device_is_reported_with_the_existing_ones() -> None:
    async with FakeAdmin() as fake:
        admin = Admin(fake.url, ("gpu7",))
        with pytest.raises(AdminError, match="no gpu7, it has GPU-0"):
            await admin.window(0, 10)
        await admin.close()


async def test_a_token_is_sent_and_a_missing_one_reported() -> None:
    async with FakeAdmin(token="secret") as fake:
        without, given = Admin(fake.url), Admin(fake.url, token="secret")
        with pytest.raises(AdminError, match="HTTP 401: give --admin-token"):
            await without.window(0, 10)
        assert await given.window(0, 10)
        assert (await given.clock()).proxy_ns > 0
        for admin in (without, given):
            await admin.close()


async def test_malformed_responses_and_an_unreachable_port_are_errors() -> None:
    async with FakeAdmin() as fake:
        admin = Admin(fake.url + "/elsewhere")
        with pytest.raises(AdminError, match="HTTP 404"):
            await admin.clock()
        await admin.close()
        gone = fake.url
    admin = Admin(gone)
    with pytest.raises(AdminError, match="no admin port of a proxy"):
        await admin.clock()
    await admin.close()
