"""Training an embedded model from scratch, in stages; each module but these holds a stage or what all stages share.

First the vision tower and the connector learn, through throw-away heads, to say what stands in each cell of a scene
(`vision`). Then, on image features that no longer change, a language model learns to answer questions and to write
captions (`language`), or a Q-Former to tell which caption belongs to which picture (`matching`).

Training takes hours. It goes on from its last checkpoint (`quantrust.embedded.checkpoints`) and then ends in the bytes
of a training that nothing interrupted.
"""
