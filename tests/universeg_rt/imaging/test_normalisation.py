"""Windows by name."""

from __future__ import annotations

import pytest

from universeg_rt import InputError, Window
from universeg_rt.imaging.normalisation import CT_WINDOWS


def test_windows_of_ct_have_names():
    assert Window.preset("lung") == Window(-1350, 150) and Window.preset("brain") == Window(0, 80)
    assert all(Window.preset(name).low < Window.preset(name).high for name in CT_WINDOWS)


@pytest.mark.parametrize("name", ["Lung", "", None, 7])
def test_other_names_are_refused_with_those_there_are(name):
    with pytest.raises(InputError, match="there is no window .*; accepted: abdomen, bone, brain, liver, lung, "):
        Window.preset(name)
