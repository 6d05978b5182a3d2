"""``--size`` of a graph: the size of the image at an output, through whatever resizes it."""

import json

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.graph import graph_of
from infinitetalk.pipeline.graphs.places import FolderFiles
from infinitetalk.pipeline.graphs.read import settings_of
from infinitetalk.tests.support.kijai_graphs import API, changed, export
from PIL import Image

PICTURE = (1000, 1500)  # what is loaded


@pytest.fixture
def api():
    """The picture's size goes through the resize node to the sampler's frames."""
    return json.loads(API.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory):
    """A ComfyUI that has the picture; its model files may be anything."""
    base = tmp_path_factory.mktemp("ComfyUI")
    (base / "input").mkdir()
    (base / "models").mkdir()
    turned = Image.new("RGB", PICTURE[::-1])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(base / "input" / "turned.jpg", exif=exif)
    Image.new("RGB", PICTURE).save(base / "input" / "me.png")
    return base


class Found(FolderFiles):
    def model(self, setting, name):
        return self.base / name

    def source(self, name):
        return self.base / "input" / name


def size_of(api, comfyui, name="me.png"):
    data = changed(api, "LoadImage", image=name)
    return settings_of(graph_of(data, "graph.json"), Found(comfyui)).settings.size


def resized(api, **inputs):
    return changed(api, "ImageResizeKJv2", **{"keep_proportion": "crop", "divisible_by": 2, **inputs})


# (widgets of the resize node, the size with the picture, the size without)
KJ = [
    ({"width": 480, "height": 832}, "480x832", "480x832"),  # a crop to 9:16 stays 9:16
    ({"width": 850, "height": 478, "divisible_by": 32}, "832x448", "832x448"),
    ({"keep_proportion": "stretch", "width": 640, "height": 0}, "640x1500", None),
    ({"keep_proportion": "pad", "width": 640, "height": 640}, "640x640", "640x640"),
    ({"keep_proportion": "pad_edge", "width": 639, "height": 640}, "638x640", "infinitetalk-480"),
    ({"keep_proportion": "pad", "width": 400, "height": 600, "divisible_by": 32}, "384x576", None),
    ({"keep_proportion": "total_pixels", "width": 960, "height": 960}, "782x1174", "infinitetalk-720"),
    ({"keep_proportion": "total_pixels", "width": 832, "height": 480}, "514x772", "infinitetalk-480"),
    ({"keep_proportion": "total_pixels", "width": 300, "height": 300}, "244x366", None),
    ({"keep_proportion": "resize", "width": 1024, "height": 1024, "divisible_by": 16}, "672x1024", None),
    ({"keep_proportion": "resize", "width": 0, "height": 832}, "554x832", None),
    ({"keep_proportion": "resize", "width": 0, "height": 0}, "1000x1500", None),
]


@pytest.mark.parametrize(("inputs", "found", "unknown"), KJ)
def test_every_way_of_kjnodes(api, comfyui, inputs, found, unknown):
    resized(api, **inputs)
    if unknown is None:
        with pytest.raises(InputError, match=r"follow from the size of .*, which is not found here; give --comfyui"):
            export(api)
    else:
        assert export(api).settings.size == unknown
    assert size_of(api, comfyui) == found


def test_a_bucket_in_the_place_of_a_size_is_told(api):
    resized(api, keep_proportion="total_pixels", width=960, height=960)
    assert any("--size infinitetalk-720 has about as many pixels" in note for note in export(api).notes)


@pytest.mark.parametrize(
    ("kind", "inputs", "found"),
    [
        ("ImageScale", {"width": 640, "height": 0, "crop": "disabled"}, "640x960"),
        ("ImageScale", {"width": 640, "height": 480, "crop": "center"}, "640x480"),
        ("ImageScaleBy", {"scale_by": 0.5}, "500x750"),
        ("ImageScaleToTotalPixels", {"megapixels": 0.5}, "591x887"),
        ("ImageScaleToMaxDimension", {"largest_size": 900}, "600x900"),
        ("ImageResize+", {"width": 700, "height": 700, "method": "keep proportion", "multiple_of": 16}, "448x688"),
        ("ImageResize+", {"width": 700, "height": 600, "method": "fill / crop", "multiple_of": 0}, "700x600"),
        (
            "ImageResize+",
            {"width": 2000, "height": 2000, "method": "stretch", "condition": "downscale if bigger", "multiple_of": 0},
            "1000x1500",
        ),
        ("ImageResizeKJ", {"width": 0, "height": 750, "keep_proportion": True, "divisible_by": 8}, "496x744"),
    ],
)
def test_other_nodes_that_resize(api, comfyui, kind, inputs, found):
    api["171"] = {"class_type": kind, "inputs": {"image": ["133", 0], "upscale_method": "lanczos", **inputs}}
    api["600"] = {"class_type": "GetImageSize", "inputs": {"image": ["171", 0]}}
    changed(api, "WanVideoImageToVideoMultiTalk", width=["600", 0], height=["600", 1])
    assert size_of(api, comfyui) == found


def test_each_output_is_what_it_is(api, comfyui):
    """Width and height crossed, and a count that is neither."""
    api["600"] = {"class_type": "GetImageSizeAndCount", "inputs": {"image": ["133", 0]}}
    changed(api, "WanVideoImageToVideoMultiTalk", width=["600", 2], height=["600", 1])
    assert size_of(api, comfyui) == "1500x1000"
    changed(api, "WanVideoImageToVideoMultiTalk", width=["600", 3])
    with pytest.raises(InputError, match="width comes from output 3 of node 600 .*, which is no width or height"):
        size_of(api, comfyui)


def test_a_picture_that_lies_on_its_side(api, comfyui):
    assert size_of(resized(api, width=0, height=0, keep_proportion="resize"), comfyui, "turned.jpg") == "1000x1500"


def test_the_custom_size_of_a_video(api):
    video = {"video": "x.mp4", "force_rate": 0, "custom_width": 850, "custom_height": ["601", 0], "format": "LTXV"}
    api["133"] = {"class_type": "VHS_LoadVideo", "inputs": video}
    api["600"] = {"class_type": "GetImageSizeAndCount", "inputs": {"image": ["133", 0]}}
    api["601"] = {"class_type": "INTConstant", "inputs": {"value": 480}}
    changed(api, "WanVideoImageToVideoMultiTalk", start_image=["600", 0], width=["600", 1], height=["600", 2])
    changed(api, "WanVideoClipVisionEncode", image_1=["600", 0])
    assert export(api).settings.size == "864x480"
    changed(api, "VHS_LoadVideo", custom_height=0)
    with pytest.raises(InputError, match=r"follow from the size of x.mp4, which is not found here"):
        export(api)


@pytest.mark.parametrize(
    ("inputs", "step"),
    [
        ({"keep_proportion": "pad_edge", "crop_position": "top"}, "lanczos,pad_edge,top,/2,640x640"),
        ({"keep_proportion": "pad", "pad_color": "255, 128, 0"}, "lanczos,pad,#ff8000,/2,640x640"),
        ({"keep_proportion": "pad", "pad_color": "1.0, 0.5, 0", "divisible_by": 1}, "lanczos,pad,#ff7f00,640x640"),
        ({"keep_proportion": "pad", "pad_color": "orange"}, "lanczos,pad,#ffa500,/2,640x640"),
        ({"keep_proportion": "pad", "pad_color": "no colour"}, None),
    ],
)
def test_bars_around_the_picture_are_a_step(api, inputs, step):
    resized(api, width=640, height=640, upscale_method="lanczos", **inputs)
    exported = export(api)
    assert exported.settings.resize == ((step,) if step else None)
    assert any("how the picture is resized" in near for near in exported.take.near) == (step is None)
