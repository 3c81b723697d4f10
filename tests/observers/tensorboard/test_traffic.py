"""What went over the links."""

from halos.observers.tensorboard.traffic import LINKED_REGIONS, LINKS, Traffic
from halos.values.records import Transfer


def test_curves_are_megabytes_in_all_by_kind_and_by_link():
    traffic = Traffic(["us", "eu"])
    assert traffic.curves() == {"traffic/total [MB]": 0.0}
    traffic.add(Transfer(0.0, 1.0, 0, 1, 1_500_000, "push", 3))
    traffic.add(Transfer(0.0, 1.0, 0, 1, 500_000, "send"))
    traffic.add(Transfer(1.0, 2.0, None, None, 1_000_000, "all_reduce"))
    assert traffic.curves() == {
        "traffic/total [MB]": 3.0,
        "traffic/pushes [MB]": 1.5,
        "traffic/us → eu [MB]": 2.0,
        "traffic/sends [MB]": 0.5,
        "traffic/all-reduces [MB]": 1.0,
    }


def test_many_regions_have_no_curves_by_link():
    assert Traffic(["r"] * LINKED_REGIONS).by_link and not Traffic(["r"] * (LINKED_REGIONS + 1)).by_link


def test_the_table_of_links_has_the_busiest_and_the_others_together():
    traffic = Traffic([f"r{index}" for index in range(LINKS + 3)])
    for dst in range(1, LINKS + 3):
        traffic.add(Transfer(0.0, 1.0, 0, dst, 1000 * dst, "send"))
    *rows, rest = traffic.links()
    assert rows[0] == (f"r0 → r{LINKS + 2}", "sends", f"{LINKS + 2}.0 kB") and len(rows) == LINKS
    assert rest == ("2 more", "", "3.0 kB")  # 1 and 2 kB
