//! The mill as a program without epilogue: what `embedded` is held against.

use textmill::load;

fn main() {
    load::mill();
}
