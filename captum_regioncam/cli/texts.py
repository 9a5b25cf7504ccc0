"""The texts of the command line's help."""

AFTER_COMMANDS = """Start with: captum-regioncam demo
Options and examples of a command: captum-regioncam COMMAND --help
Documentation: https://captum-regioncam.readthedocs.io"""
DEMO = """Run EfficientNet-Lite0 with its ImageNet weights on scikit-image's photo of a cat. The picture shows the photo
beside its Grad-CAM, LayerCAM and refined Region-CAM, and below each map the part of the photo that it cuts out.
Needs the extra "demo" (pip install "captum_regioncam[demo]"), but no internet connection."""
DEMO_EXAMPLES = """  captum-regioncam demo
  captum-regioncam demo --output cat.pdf"""
AFTER_DEMO = [
    "Next:",
    "  captum-regioncam explain PHOTO.jpg --overlay    explain photos of your own",
    "  captum-regioncam app                            the same in a browser; needs the extra app",
    "  https://captum-regioncam.readthedocs.io         Python, your own networks, seeds and masks",
]
EXPLAIN = """For each photo, write a picture of it and its class activation maps. A photo that fails does not stop the
others; it is reported at the end, and the exit status is 1."""
EXPLAIN_EXAMPLES = """  captum-regioncam explain cat.jpg
  captum-regioncam explain cat.jpg --refine --masks --boxes
  captum-regioncam explain photos/*.jpg --target tabby 207 --method grad-cam,region-cam --output maps --save-npy
  captum-regioncam explain cat.jpg --model torchvision:resnet50 --layers relu,layer1,layer2,layer3,layer4"""
APP = """Serve a page, only on this computer, to try the methods on your own photos: drop a photo, choose classes and
methods, and cut the maps into masks and boxes. Needs the extra "app" (pip install "captum_regioncam[app]"), but no
internet connection. Stop it with Ctrl-C."""
APP_EXAMPLES = """  captum-regioncam app
  captum-regioncam app --model torchvision:resnet50 --port 8000"""
LAYERS = """List the layers whose outputs are on a grid, with their shapes for one photo of the network's size. A *
marks the chosen layers: those that --layers names or, without it, the stages found."""
LAYERS_EXAMPLES = """  captum-regioncam layers --model torchvision:resnet50
  captum-regioncam layers --model timm:vit_tiny_patch16_224 --weights none --all"""
CLASSES = """List the numbers and names of a network's classes. The option --target of explain takes either."""
CLASSES_EXAMPLES = """  captum-regioncam classes cat
  captum-regioncam classes --model torchvision:resnet50 dog"""
SEEDS = """For each photo, write a seed, NAME.npy: the maps of its labelled classes, added over scales and flips.
For photos with boxes, these are score maps that wsolevaluation reads.
A photo that fails does not stop the others. Under torchrun, the processes share the photos."""
SEEDS_EXAMPLES = """  captum-regioncam seeds voc --root VOCdevkit/VOC2012 --model examples/irn_resnet50.py:network \\
      --weights res50_cam.pth --output seeds
  captum-regioncam seeds ilsvrc --root ILSVRC --model torchvision:vgg16 --output scoremaps
  torchrun --nproc-per-node 4 -m captum_regioncam seeds voc --root VOCdevkit/VOC2012 ... --output seeds --resume
  captum-regioncam seeds voc --help      the options and defaults of voc"""
LABEL_MAPS = """For each finished seed, write a label map, a PNG with VOC's palette: each pixel has its best class, or
is background where no map is above the threshold. No network is run. Under torchrun, the processes share the seeds."""
LABEL_MAPS_EXAMPLES = """  captum-regioncam label-maps seeds --output labels --threshold 0.3
  captum-regioncam label-maps seeds --output labels --threshold best --overlay overlays
  captum-regioncam label-maps seeds --output labels --refine --threshold 0.3
  captum-regioncam label-maps seeds --output ir_label --crf irn --confident best
  captum-regioncam label-maps seeds --output clip_es --crf clip-es --confident 0.95
  captum-regioncam label-maps seeds --output crf --crf psa --alpha 4,24"""
EVALUATE = """Score methods, finished seeds or finished label maps, and print a table: mIoU (voc, coco, folder), the
accuracy of boxes (ilsvrc, cub) or PxAP (openimages). Under torchrun, the processes share the photos."""
EVALUATE_EXAMPLES = """  captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --seeds seeds --plot miou.png
  captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --seeds ours theirs --per-class --latex scores.tex
  captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --seeds ours --per-photo photos.csv --gallery gallery
  captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --label-maps labels --json out.json
  captum-regioncam evaluate ilsvrc --root ILSVRC --model torchvision:vgg16 --method region-cam,layer-cam
  captum-regioncam evaluate folder --root my_photos --method region-cam,grad-cam --resize crop --json out.json
  captum-regioncam evaluate voc --help   the options and defaults of voc"""
